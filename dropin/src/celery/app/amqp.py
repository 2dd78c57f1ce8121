"""What an app has of kombu: connections, producers and queues, for the code of its users.

Our own clients and workers do without; what is changed here (`AMQP.queues`) changes what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from kombu import Connection, Consumer, Exchange, Producer, pools

from celeriac.connections import broker_url
from celeriac.errors import UsageError
from celeriac.net.url import mask
from celeriac.wire.task import TaskMessage, compose, compose_v1
from celery.app._queues import Queues, Router, kombu_queue
from celery.app._sender import Sender

__all__ = ("AMQP", "Queues", "task_message")

# Any in this module: users' values and objects of kombu, which has no types


class task_message(NamedTuple):  # noqa: N801 - Celery's name
    """A task message before it is serialized."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


class AMQP:
    """Lends kombu's connections and producers, and shows an app's queues as kombu's objects.

    Args:
        app: The app.
    """

    Connection = Connection
    Consumer = Consumer
    Producer = Producer
    queues_cls = Queues
    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024
    autoexchange: Any = None

    def __init__(self, app: Any) -> None:
        self.app = app

    # --- queues ---------------------------------------------------------------------------------------

    @property
    def queues(self) -> Queues:
        """The queues; changes count for clients and workers."""
        return self.queues_cls(self.app.router)

    @property
    def default_queue(self) -> Any:
        """The queue of tasks that no route sends elsewhere."""
        return kombu_queue(self.app.router.default_queue)

    @property
    def default_exchange(self) -> Any:
        """The exchange of queues that name none."""
        conf = self.app.conf
        name = conf.task_default_exchange or conf.task_default_queue
        return Exchange(name, type=conf.task_default_exchange_type or "direct")

    @property
    def router(self) -> Router:
        """Says where a call goes."""
        return Router(self.app.router)

    def flush_routes(self) -> None:
        """Do nothing: routes are made anew when the settings change."""

    @property
    def routes(self) -> tuple[Any, ...]:
        """What the setting ``task_routes`` lists."""
        given = self.app.conf.task_routes
        if given is None:
            return ()
        return tuple(given) if isinstance(given, (list, tuple)) else (given,)

    @property
    def utc(self) -> bool:
        """Whether times in messages are in UTC."""
        return bool(self.app.conf.enable_utc)

    # --- connections ----------------------------------------------------------------------------------

    def connection_for_read(self, url: Any = None, **options: Any) -> Any:
        """Return a new connection to the broker that workers read from."""
        return self._connection(url or broker_url(self.app.conf, write=False), options)

    def connection_for_write(self, url: Any = None, **options: Any) -> Any:
        """Return a new connection to the broker that tasks are sent to."""
        return self._connection(url or broker_url(self.app.conf, write=True), options)

    @property
    def connection_pool(self) -> Any:
        """The connections that are lent; at most ``broker_pool_limit``."""
        pools.set_limit(self.app.conf.broker_pool_limit)
        return pools.connections[self.connection_for_write()]

    @property
    def producer_pool(self) -> Any:
        """The producers that are lent."""
        pools.set_limit(self.app.conf.broker_pool_limit)
        return pools.producers[self.connection_for_write()]

    publisher_pool = producer_pool

    def connection_or_acquire(self, connection: Any, pool: bool) -> AbstractContextManager[Any]:
        """Return a block with a connection: the given one, a borrowed one or a new one."""
        if connection is not None:
            return nullcontext(connection)
        block: AbstractContextManager[Any]
        block = self.connection_pool.acquire(block=True) if pool else self.connection_for_write()
        return block

    def producer_or_acquire(self, producer: Any) -> AbstractContextManager[Any]:
        """Return a block with a producer: the given one, or a borrowed one."""
        if producer is not None:
            return nullcontext(producer)
        block: AbstractContextManager[Any] = self.producer_pool.acquire(block=True)
        return block

    def TaskConsumer(  # noqa: N802 - Celery's name
        self, channel: Any, queues: Any = None, accept: Any = None, **options: Any
    ) -> Any:
        """Return a consumer of the queues that a worker consumes from."""
        if accept is None:
            accept = self.app.conf.accept_content
        return Consumer(
            channel, accept=accept, queues=queues or list(self.queues.consume_from.values()), **options
        )

    # --- messages -------------------------------------------------------------------------------------

    def as_task_v2(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        expires: Any = None,
        create_sent_event: bool = False,
        **options: Any,
    ) -> task_message:
        """Return the message of a call, in protocol 2."""
        return self._message(
            compose, task_id, name, (args, kwargs), (countdown, eta, expires), create_sent_event, options
        )

    def as_task_v1(
        self,
        task_id: str,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        expires: Any = None,
        create_sent_event: bool = False,
        **options: Any,
    ) -> task_message:
        """Return the message of a call, in protocol 1."""
        return self._message(
            compose_v1, task_id, name, (args, kwargs), (countdown, eta, expires), create_sent_event, options
        )

    @property
    def create_task_message(self) -> Any:
        """Makes messages in the protocol that the settings say."""
        return self.as_task_v2 if self.app.conf.task_protocol == 2 else self.as_task_v1

    def send_task_message(
        self,
        producer: Any,
        name: str,
        message: task_message,
        exchange: Any = None,
        routing_key: str | None = None,
        queue: Any = None,
        serializer: str | None = None,
        compression: str | None = None,
        delivery_mode: Any = None,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Any:
        """Send a message by a producer of kombu's."""
        address = {"queue": queue, "exchange": exchange, "routing_key": routing_key}
        route = self.app.router.route(name, options={**address, "delivery_mode": delivery_mode})
        for option in ("event_dispatcher", "exchange_type", "timeout", "confirm_timeout"):
            properties.pop(option, None)
        conf = self.app.conf
        if properties.setdefault("retry", conf.task_publish_retry):
            policy = properties.pop("retry_policy", None)
            properties["retry_policy"] = {**conf.task_publish_retry_policy, **(policy or {})}
        return producer.publish(
            message.body,
            exchange=route.exchange,
            routing_key=route.routing_key,
            serializer=serializer or conf.task_serializer,
            compression=compression or conf.task_compression,
            delivery_mode=route.delivery_mode,
            headers={**message.headers, **(headers or {})},
            declare=[kombu_queue(route.queue)] if route.queue is not None else [],
            **{**message.properties, **properties},
        )

    def sender(self, producer: Any, connection: Any) -> Any:
        """Return what `celeriac.client.Client` sends with when a call names kombu's objects.

        Args:
            producer: A producer of kombu's, or None.
            connection: A connection of kombu's, which counts when there is no producer.
        """
        return Sender(Producer(connection, auto_declare=False) if producer is None else producer)

    # --- inside ---------------------------------------------------------------------------------------

    def _connection(self, url: Any, options: dict[str, Any]) -> Any:
        conf = self.app.conf
        if isinstance(url, str) and url.partition("://")[0] in _OURS:
            raise UsageError(
                f"kombu cannot connect to {mask(url)}, a broker of our own: there is no connection to lend. "
                "Send tasks with delay() and apply_async(), or set broker_url to a server."
            )
        defaults = {
            "ssl": conf.broker_use_ssl or None,
            "login_method": conf.broker_login_method,
            "failover_strategy": conf.broker_failover_strategy,
            "connect_timeout": conf.broker_connection_timeout,
        }
        given = {**{k: v for k, v in defaults.items() if v is not None}, **options}
        transport_options = {**conf.broker_transport_options, **(given.pop("transport_options", None) or {})}
        return Connection(url, transport_options=transport_options, **given)

    def _message(
        self,
        write: Any,
        task_id: str,
        name: str,
        call: tuple[Any, Any],
        times: tuple[float | None, Any, Any],
        create_sent_event: bool,
        options: dict[str, Any],
    ) -> task_message:
        args, kwargs = tuple(call[0] or ()), dict(call[1] or {})
        eta, expires = self.app.client.times(*times)
        stamps = options.get("stamped_headers") or ()
        message = TaskMessage(
            task=name,
            id=task_id,
            args=args,
            kwargs=kwargs,
            eta=eta,
            expires=expires,
            timelimit=(options.get("time_limit"), options.get("soft_time_limit")),
            group=options.get("group_id"),
            root_id=options.get("root_id") or task_id,
            ignore_result=options.get("ignore_result", False),
            stamps={stamp: options.get(stamp) for stamp in stamps} or None,
            **{key: options[key] for key in _FIELDS if options.get(key) is not None},
        )
        headers, body, props = write(message)
        event = None
        if create_sent_event:
            event = {
                "uuid": task_id,
                "root_id": message.root_id,
                "parent_id": message.parent_id,
                "name": name,
                "args": headers.get("argsrepr"),
                "kwargs": headers.get("kwargsrepr"),
                "retries": message.retries,
                "eta": eta,
                "expires": expires,
            }
        properties = {"correlation_id": props.correlation_id, "reply_to": props.reply_to or ""}
        return task_message(headers, properties, body, event)


_OURS = frozenset({"sqlite"})
_FIELDS = (
    *("group_index", "retries", "parent_id", "shadow", "argsrepr", "kwargsrepr", "origin"),
    *("replaced_task_nesting", "stamped_headers", "callbacks", "errbacks", "chain", "chord", "reply_to"),
)
