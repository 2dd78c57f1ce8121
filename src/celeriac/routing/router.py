"""Decides where a task message goes, and which queues a worker consumes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from celeriac.errors import ConfigError, QueueNotFound
from celeriac.queues import Exchange, Queue
from celeriac.routing.queues import delivery_mode, exchange_from, is_broadcast, queue_from, queue_from_options
from celeriac.routing.routes import Ask, Options, Table, routers
from celeriac.settings import Settings

_ADDRESS: Final = ("queue", "exchange", "routing_key", "exchange_type", "delivery_mode")
_ADDRESS_SET: Final = frozenset(_ADDRESS)
_MOST_KNOWN: Final = 10_000  # task names are few; a program that makes them up must not fill the memory
_PLAIN: Final = frozenset({str, int, type(None)})
_QUORUM: Final = {"x-queue-type": "quorum"}
_HIGHEST_PRIORITY: Final = 9


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message goes, and what its route adds to the options of the call."""

    queue: Queue | None  # to declare before the first publish; None when there is none to declare
    exchange: str  # "" sends to the queue that the routing key names
    routing_key: str
    delivery_mode: int
    options: dict[str, Any] = {}  # Any: option values; those of the call are stronger


class Router:
    """Knows the queues and routes that the settings describe.

    What it has made is made anew when the settings change. Queues that were added and the selection stay.

    Args:
        settings: The app's settings; read at the first use.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._generation = -1
        self._queues: dict[str, Queue] = {}
        self._aliases: dict[str, str] = {}
        self._added: dict[str, Queue] = {}
        self._missing: dict[str, Queue] = {}
        self._selected: list[str] | None = None
        self._routers: list[Ask] = []
        self._static = True
        self._known: dict[object, Route] = {}
        self._default_mode = 2

    # --- publishing --------------------------------------------------

    def route(
        self,
        name: str,
        args: Sequence[Any] | None = None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None = None,  # Any: the user's values
        options: Mapping[str, Any] | None = None,  # Any: option values
        task: object = None,
    ) -> Route:
        """Return where a task goes.

        Options of the call are stronger than those of its route; one that is None counts as not given.
        Without an exchange *and* a routing key, what is meant for a queue on a direct exchange goes to the
        anonymous exchange with the queue's name.

        Args:
            name: The task's name.
            args: Its positional arguments, for routers that look at them.
            kwargs: Its keyword arguments, likewise.
            options: The options of the call: queue, exchange, routing_key, exchange_type, delivery_mode.
            task: The task itself, where it is known.

        Raises:
            QueueNotFound: A queue is named that is not declared and may not be made.
            ConfigError: The settings of queues or routes are wrong.
        """
        if self._generation != self._settings.generation:
            self._build()
        key: object = name
        if options and not _ADDRESS_SET.isdisjoint(options):
            key = _key(name, options)
        route = self._known.get(key) if self._static else None
        if route is not None:
            return route
        route = self._find_route(name, args, kwargs, options or {}, task)
        if self._static and key is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = route
        return route

    def _find_route(
        self,
        name: str,
        args: Sequence[Any] | None,  # Any: the user's values
        kwargs: Mapping[str, Any] | None,  # Any: the user's values
        options: Mapping[str, Any],  # Any: option values
        task: object,
    ) -> Route:
        found: Options = {}
        for router in self._routers:
            answer = router(name, args, kwargs, options, task)
            if answer is not None:
                found = answer
                break
        address = {part: found.get(part) for part in _ADDRESS}
        address.update((part, options[part]) for part in _ADDRESS if options.get(part) is not None)
        extra = {key: value for key, value in found.items() if key not in _ADDRESS_SET}
        return self._address(address, extra)

    def _address(self, given: Options, extra: Options) -> Route:
        exchange = exchange_from(given["exchange"]) if given["exchange"] is not None else None
        routing_key: str = given["routing_key"] or ""
        queue = self._queue_for(given["queue"], exchange, routing_key)
        kind = given["exchange_type"] or self._exchange_type(queue, exchange)
        mode = given["delivery_mode"]
        if mode is None:
            of_queue = queue.exchange.delivery_mode if queue is not None else None
            mode = of_queue if of_queue is not None else self._default_mode
        name = exchange.name if exchange is not None else ""
        if queue is not None:
            if kind == "direct" and not (name and routing_key):
                name, routing_key = "", queue.name
            else:
                if not routing_key and name in ("", queue.exchange.name):
                    routing_key = queue.routing_key
                name = name or queue.exchange.name
        return Route(
            queue=None if queue is None or is_broadcast(queue) else queue,
            exchange=name,
            routing_key=routing_key,
            delivery_mode=delivery_mode(mode),
            options=extra,
        )

    def _queue_for(
        self, given: Any, exchange: Exchange | None, routing_key: str
    ) -> Queue | None:  # Any: a user's
        if given:
            return self.find(given) if isinstance(given, str) else queue_from(given)
        on_exchange = [
            queue
            for queue in self._queues.values()
            if exchange is not None and queue.exchange.name == exchange.name
        ]
        if exchange is None or not exchange.name:
            return self.find(self._settings.task_default_queue)
        if on_exchange and (routing_key or on_exchange[0].exchange.type == "fanout"):
            # Declaring a queue of that exchange makes the exchange known to the broker.
            return next((queue for queue in on_exchange if queue.routing_key == routing_key), on_exchange[0])
        if routing_key or exchange.type == "fanout":
            return None
        return self.find(self._settings.task_default_queue)

    @staticmethod
    def _exchange_type(queue: Queue | None, exchange: Exchange | None) -> str:
        if exchange is not None and exchange.type != "direct":
            return exchange.type
        return queue.exchange.type if queue is not None else "direct"

    # --- queues ------------------------------------------------------

    @property
    def queues(self) -> dict[str, Queue]:
        """The queues that the settings declare and those that were added, by name."""
        self._refresh()
        return self._queues

    def mentioned(self) -> list[str]:
        """Return the names of `queues`, then of those that `task_routes` names, as far as it is a table."""
        self._refresh()
        routed = [name for router in self._routers if isinstance(router, Table) for name in router.queues()]
        return list(dict.fromkeys([*self._queues, *(self._aliases.get(name, name) for name in routed)]))

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks that no route sends elsewhere.

        Raises:
            QueueNotFound: `task_queues` does not have it and it may not be made.
        """
        self._refresh()
        return self.find(self._settings.task_default_queue)

    def find(self, name: str) -> Queue:
        """Return the queue of that name or alias; a missing one is made, where the settings allow it.

        Raises:
            QueueNotFound: It is missing and may not be made.
        """
        self._refresh()
        queue = self._queues.get(self._aliases.get(name, name)) or self._missing.get(name)
        if queue is None:
            if not self._settings.task_create_missing_queues:
                raise QueueNotFound(
                    f"Queue {name!r} missing from task_queues; add it there, or let it be made by turning "
                    "task_create_missing_queues on."
                )
            queue = self._missing[name] = self._make(name)
        return queue

    def add(self, queue: Queue | str) -> Queue:
        """Declare one more queue, and consume from it where queues were selected; return it as declared."""
        self._refresh()
        made = self.find(queue) if isinstance(queue, str) else self._completed(queue)
        self._added[made.name] = made
        self._register(made)
        if self._selected is not None and made.name not in self._selected:
            self._selected.append(made.name)
        return made

    def select(self, names: str | Iterable[str]) -> None:
        """Consume from these queues only (``-Q``).

        Args:
            names: Names or aliases; one text may hold several with commas between them.

        Raises:
            QueueNotFound: One is missing and may not be made.
        """
        self._selected = [self.find(name).name for name in _names(names)]

    def deselect(self, names: str | Iterable[str]) -> list[str]:
        """Do not consume from these queues (``-X``); return those that were not consumed from anyway."""
        chosen = [queue.name for queue in self.consume_from()]
        unwanted = {self._aliases.get(name, name): name for name in _names(names)}
        self._selected = [name for name in chosen if name not in unwanted]
        return [said for name, said in unwanted.items() if name not in chosen]

    def remove(self, name: str) -> None:
        """Do not consume from a queue any more; it can still be sent to."""
        self.deselect([name])

    def consume_from(self) -> tuple[Queue, ...]:
        """Return the queues that a worker consumes from."""
        self._refresh()
        if self._selected is None:
            return tuple(self._queues.values())
        return tuple(self.find(name) for name in self._selected)

    # --- from the settings -------------------------------------------

    def _refresh(self) -> None:
        if self._generation != self._settings.generation:
            self._build()

    def _build(self) -> None:
        conf = self._settings
        conf.finalize()
        generation = conf.generation
        self._known.clear()
        self._missing.clear()
        self._default_mode = delivery_mode(conf.task_default_delivery_mode or 2)
        self._routers = routers(conf.task_routes)
        self._static = all(isinstance(router, Table) for router in self._routers)
        self._queues, self._aliases = {}, {}
        for queue in (*self._declared(), *self._added.values()):
            self._register(self._completed(queue))
        self._generation = generation

    def _register(self, queue: Queue) -> None:
        self._queues[queue.name] = queue
        self._known.clear()
        if queue.alias is not None:
            self._aliases[queue.alias] = queue.name

    def _declared(self) -> list[Queue]:
        conf = self._settings
        given: Any = conf.task_queues  # Any: a user's value
        if given is None or (isinstance(given, Sequence) and not given):
            quorum = conf.task_default_queue_type == "quorum"
            return [Queue(name=conf.task_default_queue, arguments=dict(_QUORUM) if quorum else {})]
        if isinstance(given, Mapping):
            return [
                queue_from_options(name, options or {})
                if options is None or isinstance(options, Mapping)
                else queue_from(options)
                for name, options in given.items()
            ]
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ConfigError(
                f"task_queues = {given!r} cannot be used: it takes a list of queues, or a dict."
            )
        return [self._make(item) if isinstance(item, str) else queue_from(item) for item in given]

    def _completed(self, queue: Queue) -> Queue:
        """Fill in the default exchange, routing key and priority where the queue has none of its own."""
        conf = self._settings
        default_name = conf.task_default_queue
        exchange = queue.exchange
        if not exchange.name:
            exchange = Exchange(
                name=conf.task_default_exchange or default_name,
                type=conf.task_default_exchange_type or "direct",
            )
        arguments = queue.arguments
        highest = conf.task_queue_max_priority
        if highest is None and conf.task_priority_high_first and "x-queue-type" not in arguments:
            highest = _HIGHEST_PRIORITY  # or RabbitMQ would not look at priorities
        if highest is not None and "x-max-priority" not in arguments:
            arguments = {**arguments, "x-max-priority": highest}
        return msgspec.structs.replace(
            queue,
            exchange=exchange,
            routing_key=queue.routing_key or conf.task_default_routing_key or default_name,
            arguments=arguments,
        )

    def _make(self, name: str) -> Queue:
        """Make a queue of a bare name: exchange and routing key are named as it is."""
        conf = self._settings
        kind = conf.task_create_missing_queue_exchange_type or "direct"
        quorum = conf.task_create_missing_queue_type == "quorum"
        queue = Queue(
            name=name,
            exchange=Exchange(name=name, type=kind),
            routing_key=name,
            arguments=dict(_QUORUM) if quorum else {},
        )
        return self._completed(queue)


def _key(name: str, options: Mapping[str, Any]) -> object:  # Any: option values
    """Return what a route with an explicit address is known by; None when it holds objects."""
    get = options.get
    key = (
        name, get("queue"), get("exchange"), get("routing_key"), get("exchange_type"), get("delivery_mode"),
    )  # fmt: skip
    for part in key:
        if part.__class__ not in _PLAIN:
            return None
    return key


def _names(names: str | Iterable[str]) -> list[str]:
    parts = names.split(",") if isinstance(names, str) else names
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
