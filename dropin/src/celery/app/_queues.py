"""The queues and routes of an app as kombu's objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from kombu import Exchange, Queue

from celeriac import queues as core
from celeriac.routing import Router as CoreRouter
from celeriac.routing.queues import queue_from

# Any in this module: users' values and objects of kombu, which has no types


class Queues(MutableMapping[str, Any]):
    """The queues of an app as kombu's objects, by name or alias; missing ones are made.

    Args:
        router: The app's, which keeps them.
    """

    def __init__(self, router: CoreRouter) -> None:
        self._router = router

    def __getitem__(self, name: str) -> Any:
        return kombu_queue(self._router.find(name))

    def __setitem__(self, name: str, queue: Any) -> None:
        self.add(queue)

    def __delitem__(self, name: str) -> None:
        self._router.remove(name)

    def __contains__(self, name: object) -> bool:
        return name in self._router.queues

    def __iter__(self) -> Iterator[str]:
        return iter(self._router.queues)

    def __len__(self) -> int:
        return len(self._router.queues)

    @property
    def consume_from(self) -> dict[str, Any]:
        """The queues that a worker consumes from."""
        return {queue.name: kombu_queue(queue) for queue in self._router.consume_from()}

    def add(self, queue: Any, **options: Any) -> Any:
        """Declare one more queue.

        Args:
            queue: It, or its name.
            **options: Of a queue that is given by name: ``exchange``, ``exchange_type``, ``routing_key``, …
        """
        if isinstance(queue, str):
            queue = self._named(queue, options)
        return kombu_queue(self._router.add(queue_from(queue)))

    def add_compat(self, name: str, **options: Any) -> Any:
        """Declare one more queue by the options of the settings' dict form; as `add`."""
        return self.add(name, **options)

    def new_missing(self, name: str) -> Any:
        """Return the queue that is made of a bare name."""
        return kombu_queue(self._router.find(name))

    def select(self, include: str | Iterable[str]) -> None:
        """Have workers consume from these queues only."""
        if include:
            self._router.select(include)

    def select_add(self, queue: Any, **options: Any) -> Any:
        """Declare one more queue and have workers consume from it."""
        return self.add(queue, **options)

    def deselect(self, exclude: str | Iterable[str]) -> None:
        """Have workers not consume from these queues."""
        if exclude:
            self._router.deselect(exclude)

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Return the queues that workers consume from as text, one in a line."""
        lines = [
            f".> {queue.name:<16} exchange={queue.exchange.name}({queue.exchange.type}) "
            f"key={queue.routing_key}"
            for queue in self._router.consume_from()
        ]
        margin = " " * indent
        text = "\n".join(margin + line for line in lines)
        return text if indent_first else text.removeprefix(margin)

    @staticmethod
    def _named(name: str, options: Mapping[str, Any]) -> Any:
        given = dict(options)
        key = given.pop("routing_key", None) or given.pop("binding_key", None) or name
        exchange = given.pop("exchange", None)
        kind = given.pop("exchange_type", None) or "direct"
        if exchange is None or isinstance(exchange, str):
            exchange = Exchange(exchange or name, type=kind)
        return Queue(name, exchange, routing_key=key, **given)


class Router:
    """Says where a call goes, in Celery's form.

    Args:
        router: The app's.
    """

    def __init__(self, router: CoreRouter) -> None:
        self._router = router

    def route(
        self,
        options: Mapping[str, Any] | None,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Return the options of a call with those that its route adds, ``queue`` among them.

        Raises:
            QueueNotFound: A queue is named that is not declared and may not be made.
        """
        found = self._router.route(name, args, kwargs, options, task_type)
        merged = {**found.options, **{k: v for k, v in (options or {}).items() if v is not None}}
        if found.queue is not None:
            merged["queue"] = kombu_queue(found.queue)
        else:
            merged.update(exchange=found.exchange, routing_key=found.routing_key)
        return merged


def kombu_exchange(exchange: core.Exchange) -> Any:
    """Return an exchange of ours as kombu's."""
    return Exchange(
        exchange.name,
        type=exchange.type,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        delivery_mode=exchange.delivery_mode,
        arguments=exchange.arguments or None,
    )


def kombu_queue(queue: core.Queue) -> Any:
    """Return a queue of ours as kombu's."""
    return Queue(
        queue.name,
        kombu_exchange(queue.exchange),
        routing_key=queue.routing_key,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        no_ack=queue.no_ack,
        alias=queue.alias,
        queue_arguments=queue.arguments or None,
        consumer_arguments=queue.consumer_arguments or None,
    )
