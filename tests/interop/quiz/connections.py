"""The parts of an app that speak kombu: connections, producers, queues."""

from kombu import Connection, Exchange, Producer, Queue

from quiz.asking import args_of, error, new_app, question


@question
def connections():
    app = new_app(broker="memory://one", broker_read_url="memory://read", broker_write_url="memory://write")
    found = [
        app.connection(),
        app.connection_for_read(),
        app.connection_for_write(),
        app.broker_connection(),
        app.connection(hostname="memory://else"),
    ]
    return [[isinstance(one, Connection), one.hostname, one.transport_cls] for one in found]


@question
def a_connection_takes_the_settings():
    app = new_app(
        broker="amqp://user:pw@host:1234/vh", broker_heartbeat=7, broker_connection_timeout=3, broker_login_method="PLAIN",
        broker_transport_options={"a": 1}, broker_failover_strategy="shuffle",
    )  # fmt: skip
    one = app.connection()
    return [
        one.userid,
        one.password,
        one.hostname,
        one.port,
        one.virtual_host,
        one.connect_timeout,
        one.login_method,
        one.transport_options.get("a"),
        one.as_uri(),
    ]


@question
def several_brokers():
    one = new_app(broker=["amqp://a//", "amqp://b//"]).connection()
    return [one.hostname, one.alt]


@question
def connections_can_be_borrowed():
    app = new_app()
    with app.connection_or_acquire() as one:
        found = [isinstance(one, Connection), one.connected]
    with (
        app.connection() as mine,
        app.connection_or_acquire(mine) as other,
        app.default_connection(mine) as third,
    ):
        found += [mine is other, third is mine]
    with app.pool.acquire(block=True) as pooled:
        found += [isinstance(pooled, Connection)]
    return found, app.pool.limit


@question
def producers_can_be_borrowed():
    app = new_app()
    with app.producer_or_acquire() as one:
        found = [isinstance(one, Producer)]
        with app.producer_or_acquire(one) as other, app.default_producer(one) as third:
            found += [one is other, one is third]
    with app.producer_pool.acquire(block=True) as pooled, app.amqp.producer_pool.acquire(block=True) as again:
        found += [isinstance(pooled, Producer), isinstance(again, Producer)]
    return found


@question
def a_producer_publishes_what_a_consumer_reads():
    app, heard = new_app(), []
    queue = Queue("read", Exchange("read"), routing_key="k")
    with app.producer_or_acquire() as producer:
        producer.publish({"a": 1}, exchange="read", routing_key="k", declare=[queue])
        with producer.connection.Consumer(
            [queue], accept=["json"], callbacks=[lambda body, message: (heard.append(body), message.ack())]
        ):
            producer.connection.drain_events(timeout=2)
    return heard


@question
def a_call_can_be_sent_by_a_producer_of_ones_own():
    app, heard = new_app(broker="memory://nobody"), []
    add = app.task(name="t")(args_of)
    queue = Queue("elsewhere", Exchange("elsewhere"), routing_key="elsewhere")
    with Connection("memory://elsewhere") as connection:
        add.apply_async((1,), task_id="by-producer", queue="elsewhere", producer=Producer(connection))
        add.apply_async((2,), task_id="by-connection", queue="elsewhere", connection=connection)
        with connection.Consumer(
            [queue],
            accept=["json"],
            callbacks=[
                lambda body, m: (
                    heard.append([m.headers["id"], body[0], m.delivery_info["routing_key"]]),
                    m.ack(),
                )
            ],
        ):
            connection.drain_events(timeout=2)
            connection.drain_events(timeout=2)
    return heard


@question
def queues_of_the_app():
    app = new_app(
        task_queues=[Queue("one", Exchange("e", "topic"), routing_key="k.#"), Queue("two", alias="second")],
        task_queue_max_priority=5,
        task_default_queue="one",
    )
    queues = app.amqp.queues
    listed = sorted(queues)
    new = queues["new"]
    return {
        "names": listed, "one": [queues["one"].exchange.name, queues["one"].exchange.type, queues["one"].routing_key, queues["one"].queue_arguments],
        "two": [queues["two"].exchange.name, queues["two"].routing_key], "alias": queues["second"].name, "in": ["one" in queues, "nope" in queues],
        "new": [new.name, new.exchange.name, new.routing_key, isinstance(new, Queue)], "default": [app.amqp.default_queue.name, app.amqp.default_exchange.name, app.amqp.default_exchange.type],
        "from": sorted(set(queues.consume_from) - {"new"}),
    }  # fmt: skip


@question
def queues_can_be_chosen():
    app = new_app(task_queues=[Queue("one"), Queue("two")])
    queues = app.amqp.queues
    queues.select(["two", "three"])
    chosen = sorted(queues.consume_from)
    queues.select_add("four", exchange="f", routing_key="r")
    added = sorted(queues.consume_from)
    queues.deselect("three")
    left = sorted(queues.consume_from)
    queues.add("five", exchange="x")
    queues.add(Queue("six"))
    other = new_app(task_queues=[Queue("one"), Queue("two")])
    other.amqp.queues.deselect(["one"])
    other2 = new_app()
    other2.select_queues(["a", "b"])
    return (
        chosen,
        added,
        left,
        sorted(set(queues) - {"three"}),
        queues["five"].exchange.name,
        sorted(other.amqp.queues.consume_from),
        sorted(other2.amqp.queues.consume_from),
    )


@question
def queues_as_text():
    app = new_app(
        task_queues=[
            Queue("one", Exchange("e"), routing_key="k"),
            Queue("two", Exchange("f", "topic"), routing_key="t.#"),
        ]
    )
    return app.amqp.queues.format(), app.amqp.queues.format(indent=4, indent_first=False)


@question
def the_router():
    app = new_app(task_routes={"a.*": {"queue": "aq", "priority": 3}})
    router = app.amqp.router
    plain, routed = router.route({}, "x"), router.route({"priority": 9}, "a.b", (1,), {})
    explicit = router.route({"queue": "mine"}, "a.b")
    return [
        [plain["queue"].name], [routed["queue"].name, routed["priority"]], [explicit["queue"].name], len(app.amqp.routes), error(new_app(task_create_missing_queues=False).amqp.router.route, {"queue": "nope"}, "t")
    ]  # fmt: skip


@question
def messages_made_by_hand():
    app = new_app()
    message = app.amqp.create_task_message(
        "i",
        "t",
        (1,),
        {"a": 2},
        countdown=None,
        shadow="s",
        group_id="g",
        time_limit=3,
        create_sent_event=True,
    )
    headers = {k: v for k, v in message.headers.items() if k != "origin"}
    old = app.amqp.as_task_v1("i", "t", (1,), {"a": 2})
    return [headers, message.properties, message.body, sorted(message.sent_event)], [
        old.headers,
        old.properties,
        old.body,
    ]


@question
def sizes_and_parts():
    amqp = new_app().amqp
    return [
        amqp.argsrepr_maxsize,
        amqp.kwargsrepr_maxsize,
        amqp.utc,
        amqp.autoexchange,
        amqp.Connection is Connection,
        amqp.Producer is Producer,
        amqp.app.main,
    ]


@question
def a_message_sent_by_hand():
    app, heard = new_app(), []
    message = app.amqp.create_task_message("i", "t", (1,), {})
    with app.producer_or_acquire() as producer:
        app.amqp.send_task_message(producer, "t", message, queue="q", serializer="json")
        with app.amqp.TaskConsumer(
            producer.channel,
            [app.amqp.queues["q"]],
            callbacks=[lambda body, m: (heard.append([m.headers["task"], body[0], m.content_type]), m.ack())],
        ):
            producer.connection.drain_events(timeout=2)
    return heard


@question
def a_subclass_of_its_parts():
    from celery import Celery
    from celery.app.amqp import AMQP

    class Mine(AMQP):
        answer = 42

    return Celery("x", amqp=Mine).amqp.answer
