"""Queues from whatever users write in their settings: kombu's objects, our own, dicts and bare names.

kombu is not imported: its objects are known by their attributes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from celeriac.errors import ConfigError
from celeriac.queues import Binding, Exchange, Queue
from celeriac.settings.spelling import did_you_mean

_DELIVERY_MODES: Final[dict[object, int]] = {
    1: 1, "1": 1, "transient": 1,
    2: 2, "2": 2, "persistent": 2,
}  # fmt: skip

# Attributes (kombu) or options (dicts) that RabbitMQ knows as queue arguments, with the factor to its unit.
_AS_ARGUMENTS: Final = {
    "expires": ("x-expires", 1000),
    "message_ttl": ("x-message-ttl", 1000),
    "max_length": ("x-max-length", 1),
    "max_length_bytes": ("x-max-length-bytes", 1),
    "max_priority": ("x-max-priority", 1),
}

# Options of a queue in the dict form of `task_queues`, with the field that each one sets.
_QUEUE_OPTIONS: Final = {
    "routing_key": "routing_key",
    "binding_key": "routing_key",
    "durable": "durable",
    "queue_durable": "durable",
    "exclusive": "exclusive",
    "queue_exclusive": "exclusive",
    "auto_delete": "auto_delete",
    "queue_auto_delete": "auto_delete",
    "no_ack": "no_ack",
    "alias": "alias",
    "consumer_arguments": "consumer_arguments",
}
_EXCHANGE_OPTIONS: Final = {
    "exchange_type": "type",
    "exchange_durable": "durable",
    "exchange_auto_delete": "auto_delete",
    "exchange_arguments": "arguments",
    "delivery_mode": "delivery_mode",
}
_OTHER_OPTIONS: Final = ("exchange", "queue_arguments", "binding_arguments", "bindings")


def delivery_mode(value: Any) -> int:  # Any: a user's value
    """Return 1 (transient) or 2 (persistent) for any way to say it.

    Raises:
        ConfigError: It says neither.
    """
    mode = _DELIVERY_MODES.get(value) if isinstance(value, (int, str)) else None
    if mode is None:
        raise ConfigError(f'{value!r} is no delivery mode; it is 1 or "transient", 2 or "persistent".')
    return mode


def broadcast_queue(name: str, *, queue: str | None = None) -> Queue:
    """Return a queue of this process that gets every message sent to ``name``, as every other consumer does.

    Args:
        name: The fanout exchange; tasks are routed to it by this name.
        queue: Name of the queue itself, when it shall not be a new one for each process.
    """
    return Queue(
        name=queue or f"bcast.{uuid.uuid4()}",
        exchange=Exchange(name=name, type="fanout"),
        alias=queue or name,
        auto_delete=True,
    )


def is_broadcast(queue: Queue) -> bool:
    """Tell whether only consumers declare the queue, each one its own."""
    return queue.exchange.type == "fanout" and queue.auto_delete and queue.alias is not None


def exchange_from(value: Any) -> Exchange:  # Any: ours, kombu's, or a name
    """Return the exchange that a user's value stands for; None is the anonymous one."""
    if isinstance(value, Exchange):
        return value
    if value is None or isinstance(value, str):
        return Exchange(name=value or "")
    mode = getattr(value, "delivery_mode", None)
    return Exchange(
        name=value.name or "",
        type=getattr(value, "type", None) or "direct",
        durable=bool(getattr(value, "durable", True)),
        auto_delete=bool(getattr(value, "auto_delete", False)),
        delivery_mode=None if mode is None else delivery_mode(mode),
        arguments=dict(getattr(value, "arguments", None) or {}),
    )


def queue_from(value: Any) -> Queue:  # Any: ours or kombu's
    """Return the queue that a user's object stands for.

    Raises:
        ConfigError: It is no queue.
    """
    if isinstance(value, Queue):
        return value
    name = getattr(value, "name", None)
    if not isinstance(name, str) or not hasattr(value, "routing_key"):
        raise ConfigError(f"{value!r} is no queue; give a Queue object, or a dict of name to options.")
    exchange = exchange_from(value.exchange)
    arguments = dict(getattr(value, "queue_arguments", None) or {})
    _add_arguments(arguments, {key: getattr(value, key, None) for key in _AS_ARGUMENTS})
    return Queue(
        name=name,
        exchange=exchange,
        routing_key=value.routing_key or "",
        durable=bool(value.durable),
        exclusive=bool(value.exclusive),
        auto_delete=bool(value.auto_delete),
        no_ack=bool(getattr(value, "no_ack", False)),
        alias=getattr(value, "alias", None),
        arguments=arguments,
        consumer_arguments=dict(getattr(value, "consumer_arguments", None) or {}),
        bindings=_bindings(
            getattr(value, "bindings", None) or (),
            (exchange, value.routing_key or "", getattr(value, "binding_arguments", None)),
        ),
    )


def queue_from_options(name: str, options: Mapping[str, Any]) -> Queue:  # Any: users' values
    """Return the queue that an entry in the dict form of `task_queues` describes.

    The routing key is the queue's name where none is given; a missing exchange stays anonymous.

    Raises:
        ConfigError: An option is unknown.
    """
    queue: dict[str, Any] = {"name": name, "routing_key": name}  # Any: one value per field
    exchange: dict[str, Any] = {}  # Any: one value per field
    arguments = dict(options.get("queue_arguments") or {})
    for key, value in options.items():
        if value is None or key in _OTHER_OPTIONS or key in _AS_ARGUMENTS:
            continue
        if key in _QUEUE_OPTIONS:
            queue[_QUEUE_OPTIONS[key]] = value
        elif key in _EXCHANGE_OPTIONS:
            exchange[_EXCHANGE_OPTIONS[key]] = delivery_mode(value) if key == "delivery_mode" else value
        else:
            known = (*_QUEUE_OPTIONS, *_EXCHANGE_OPTIONS, *_AS_ARGUMENTS, *_OTHER_OPTIONS)
            meant = did_you_mean(str(key), known)
            hint = f"; did you mean {meant!r}?" if meant else f" (known: {', '.join(sorted(known))})."
            raise ConfigError(f"Queue {name!r} in task_queues has an unknown option {key!r}{hint}")
    _add_arguments(arguments, options)
    given = options.get("exchange")
    if given is None or isinstance(given, str):
        address = Exchange(name=given or "", **exchange)
    else:
        address = exchange_from(given)
    return Queue(
        **queue,
        exchange=address,
        arguments=arguments,
        bindings=_bindings(
            options.get("bindings") or (),
            (address, queue["routing_key"], options.get("binding_arguments")),
        ),
    )


def _add_arguments(arguments: dict[str, Any], options: Mapping[str, Any]) -> None:  # Any: the broker's values
    for key, (argument, factor) in _AS_ARGUMENTS.items():
        value = options.get(key)
        if value is not None:
            arguments[argument] = int(value * factor)


def _bindings(
    values: Iterable[Any],  # Any: ours or kombu's
    own: tuple[Exchange, str, dict[str, Any] | None],  # Any: the broker's values
) -> tuple[Binding, ...]:
    """Return the further bindings, and the queue's own one where it has arguments."""
    found = [
        value
        if isinstance(value, Binding)
        else Binding(
            exchange=exchange_from(value.exchange),
            routing_key=value.routing_key or "",
            arguments=dict(value.arguments or {}),
        )
        for value in values
    ]
    exchange, routing_key, arguments = own
    if arguments:
        found.append(Binding(exchange=exchange, routing_key=routing_key, arguments=dict(arguments)))
    # kombu keeps them in a set; in order they are the same on every run.
    return tuple(sorted(found, key=lambda binding: (binding.exchange.name, binding.routing_key)))
