"""Collections: bounded ones, and dictionaries with attributes."""

from __future__ import annotations

import time
from collections import OrderedDict as _OrderedDict
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from queue import Empty
from typing import Any

from kombu.utils.functional import LRUCache

__all__ = (
    "AttributeDict",
    "AttributeDictMixin",
    "BufferMap",
    "ChainMap",
    "ConfigurationView",
    "DictAttribute",
    "Evictable",
    "LRUCache",
    "LimitedSet",
    "Messagebuffer",
    "OrderedDict",
    "force_mapping",
    "lpmerge",
)


def force_mapping(m: Any) -> Any:  # Any: a mapping, or an object whose attributes are one
    """Return a mapping as it is, and an object as the mapping of its attributes."""
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: dict[Any, Any], R: dict[Any, Any]) -> dict[Any, Any]:  # noqa: N803 - Celery's names
    """Set what the right dictionary has in the left one, but for None; return the left."""
    L.update({key: value for key, value in R.items() if value is not None})
    return L


class OrderedDict(_OrderedDict[Any, Any]):
    """An ordered dictionary with quick access to its last key."""

    def _LRUkey(self) -> Any:  # noqa: N802 - Celery's name
        return next(iter(self.keys()))


class AttributeDictMixin:
    """Items as attributes."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index]  # a dictionary is what it is mixed into
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict[Any, Any], AttributeDictMixin):
    """A dictionary whose items are attributes as well."""


class DictAttribute:
    """The attributes of an object as a mapping.

    Args:
        obj: The object.
    """

    obj: Any = None

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or a default."""
        return getattr(self.obj, key, default)

    def setdefault(self, key: str, default: Any = None) -> None:
        """Set an attribute that is missing."""
        if key not in self:
            self[key] = default

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __contains__(self, key: object) -> bool:
        return hasattr(self.obj, str(key))

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def keys(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self)

    def values(self) -> Iterator[Any]:
        """Yield the values."""
        return (getattr(self.obj, key) for key in self)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield names and values."""
        return ((key, getattr(self.obj, key)) for key in self)

    iterkeys = keys
    itervalues = values
    iteritems = items


MutableMapping.register(DictAttribute)


class ChainMap(MutableMapping[Any, Any]):
    """Several mappings as one: the first that has a key gives it, and the first of all takes changes.

    Args:
        *maps: The mappings.
        **kwargs: ``key_t`` converts every key that is asked for.
    """

    key_t: Callable[[Any], Any] | None = None
    changes: Any = None
    defaults: list[Any] = []  # noqa: RUF012 - each object has its own; the class has Celery's attribute
    maps: list[Any] = []  # noqa: RUF012 - as above
    _observers: tuple[Callable[..., Any], ...] = ()

    def __init__(self, *maps: Any, **kwargs: Any) -> None:
        found = list(maps or ({},))
        self.__dict__.update(
            key_t=kwargs.get("key_t"), maps=found, changes=found[0], defaults=found[1:], _observers=()
        )

    def add_defaults(self, d: Any) -> None:
        """Ask another mapping after the first, before the others."""
        d = force_mapping(d)
        self.defaults.insert(0, d)
        self.maps.insert(1, d)

    def _key(self, key: Any) -> Any:
        return self.key_t(key) if self.key_t is not None else key

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __getitem__(self, key: Any) -> Any:
        wanted = self._key(key)
        for one in self.maps:
            try:
                return one[wanted]
            except KeyError:
                pass
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __delitem__(self, key: Any) -> None:
        try:
            del self.changes[self._key(key)]
        except KeyError:
            raise KeyError(f"Key not found in first mapping: {key!r}") from None

    def pop(self, key: Any, *default: Any) -> Any:
        """Take a key out of the first mapping."""
        try:
            return self.changes.pop(self._key(key), *default)
        except KeyError:
            raise KeyError(f"Key not found in the first mapping: {key!r}") from None

    def clear(self) -> None:
        """Empty the first mapping."""
        self.changes.clear()

    def get(self, key: Any, default: Any = None) -> Any:
        """Return what a key has, or a default."""
        try:
            return self[self._key(key)]
        except KeyError:
            return default

    def __len__(self) -> int:
        return len(set().union(*self.maps))

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(chain.from_iterable(reversed([list(one.keys()) for one in self.maps]))))

    def __contains__(self, key: object) -> bool:
        wanted = self._key(key)
        return any(wanted in one for one in self.maps)

    def __bool__(self) -> bool:
        return any(self.maps)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Set a key that is missing; return what it has."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several keys."""
        self.changes.update(*args, **kwargs)
        for tell in self._observers:
            tell(*args, **kwargs)

    def copy(self) -> ChainMap:
        """Return one with a first mapping of its own."""
        return type(self)(self.maps[0].copy(), *self.maps[1:])

    __copy__ = copy

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Call a function with what `update` gets."""
        self.__dict__["_observers"] = (*self._observers, callback)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.maps))})"


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Changes over defaults, with the keys as attributes.

    Args:
        changes: What takes changes.
        defaults: Asked for what the changes have not.
        keys: Return the names that a key is known by.
        prefix: Put before keys.
    """

    def __init__(
        self,
        changes: Any,
        defaults: list[Any] | None = None,
        keys: Iterable[Callable[[Any], Any]] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(changes, *(defaults or []))
        self.__dict__.update(prefix=f"{prefix.rstrip('_')}_" if prefix else "", _keys=tuple(keys or ()))

    def _names(self, key: Any) -> Iterator[Any]:
        prefix = self.__dict__["prefix"]
        name = prefix + key if prefix and not key.startswith(prefix) else key
        return chain([name], (transform(name) for transform in self.__dict__["_keys"]))

    def __getitem__(self, key: Any) -> Any:
        for name in self._names(key):
            for one in self.maps:
                try:
                    return one[name]
                except KeyError:
                    pass
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __contains__(self, key: object) -> bool:
        return any(name in one for name in self._names(key) for one in self.maps)

    def first(self, *keys: str) -> Any:
        """Return what the first of several keys that has something has; None when none has."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return what a key has, or a default."""
        try:
            return self[key]
        except KeyError:
            return default

    def swap_with(self, other: ConfigurationView) -> None:
        """Become what another one is."""
        self.__dict__.update(
            {name: other.__dict__[name] for name in ("changes", "defaults", "key_t", "prefix", "maps")}
        )


class LimitedSet:
    """A set that forgets its oldest items: those above a number, and those above an age.

    Args:
        maxlen: Items at most; 0 for any number.
        expires: Seconds that an item is kept; 0 for ever.
        data: Items: an iterable, or a mapping of items to the times when they were added.
        minlen: Items that are kept whatever their age.
    """

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen: int = maxlen or 0
        self.minlen: int = minlen or 0
        self.expires = expires or 0
        self._added: _OrderedDict[Any, float] = _OrderedDict()
        if not self.maxlen >= self.minlen >= 0 or self.expires < 0:
            raise ValueError("a LimitedSet has a maxlen >= minlen >= 0, and expires >= 0")
        if data:
            self.update(data)

    def clear(self) -> None:
        """Forget everything."""
        self._added.clear()

    def add(self, item: Any, now: float | None = None) -> None:
        """Add an item, or make it new again."""
        moment = time.monotonic() if now is None else now
        newest = next(reversed(self._added.values()), moment)
        self._added.pop(item, None)
        self._added[item] = moment
        if moment < newest:
            self._added = _OrderedDict(sorted(self._added.items(), key=lambda pair: pair[1]))
        self.purge(now)

    def update(self, other: Any) -> None:
        """Add the items of another one, of a mapping to times, or of an iterable."""
        if not other:
            return
        if isinstance(other, LimitedSet):
            times: Mapping[Any, float] = other._added
        elif isinstance(other, Mapping):
            times = {
                item: value["inserted"] if isinstance(value, Mapping) else value
                for item, value in other.items()
            }
        else:
            times = dict.fromkeys(other, time.monotonic())
        for item, moment in times.items():
            known = self._added.get(item)
            if known is None or known < moment:
                self._added[item] = moment
        self._added = _OrderedDict(sorted(self._added.items(), key=lambda pair: pair[1]))
        self.purge()

    def discard(self, item: Any) -> None:
        """Forget an item."""
        self._added.pop(item, None)

    pop_value = discard

    def purge(self, now: float | None = None) -> None:
        """Forget what is too much or too old."""
        moment = time.monotonic() if now is None else now
        while self.maxlen and len(self._added) > self.maxlen:
            self._added.popitem(last=False)
        while self.expires and len(self._added) > self.minlen:
            oldest = next(iter(self._added.values()))
            if oldest + self.expires > moment:
                break
            self._added.popitem(last=False)

    def pop(self, default: Any = None) -> Any:
        """Take the oldest item out; a default from an empty set."""
        return self._added.popitem(last=False)[0] if self._added else default

    def as_dict(self) -> dict[Any, float]:
        """Return the items with the times when they were added."""
        return dict(self._added)

    def __contains__(self, item: object) -> bool:
        return item in self._added

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._added))

    def __len__(self) -> int:
        return len(self._added)

    def __bool__(self) -> bool:
        return bool(self._added)

    def __eq__(self, other: object) -> bool:
        return self._added == other._added if isinstance(other, LimitedSet) else NotImplemented

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.maxlen, self.expires, self.as_dict(), self.minlen)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}({len(self)}): maxlen={self.maxlen}, expires={self.expires}, "
            f"minlen={self.minlen}>"
        )


class Evictable:
    """Root of what drops its oldest items."""

    Empty = Empty

    def evict(self) -> None:
        """Drop items until it is as small as it has to be."""
        raise NotImplementedError(f"{type(self).__name__} has no evict()")


class Messagebuffer(Evictable):
    """A queue that drops its oldest items.

    Args:
        maxsize: Items at most.
        iterable: The first items.
        deque: What keeps them.
    """

    def __init__(
        self, maxsize: int | None, iterable: Iterable[Any] | None = None, deque: Callable[..., Any] = deque
    ) -> None:
        self.maxsize = maxsize
        self.data: Any = deque(iterable or [])

    def put(self, item: Any) -> None:
        """Add an item at the end."""
        self.data.append(item)
        self.evict()

    def extend(self, it: Iterable[Any]) -> None:
        """Add items at the end."""
        self.data.extend(it)
        self.evict()

    def take(self, *default: Any) -> Any:
        """Take the first item; the default from an empty one.

        Raises:
            Empty: There is no item, and no default.
        """
        if self.data:
            return self.data.popleft()
        if default:
            return default[0]
        raise self.Empty

    def evict(self) -> None:
        """Drop what is too much."""
        while self.maxsize is not None and len(self.data) > self.maxsize:
            self.data.popleft()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        while self.data:
            yield self.data.popleft()

    def __getitem__(self, index: int) -> Any:
        return self.data[index]

    def __contains__(self, item: object) -> bool:
        return item in self.data

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)}/{self.maxsize}>"


class BufferMap(OrderedDict, Evictable):
    """Queues by key, that drop items of the longest unused key.

    Args:
        maxsize: Items at most in all.
        iterable: The first queues.
        bufmaxsize: Items at most of one key.
    """

    Buffer = Messagebuffer
    maxsize: int | None = None
    total: int = 0

    def __init__(
        self, maxsize: int | None, iterable: Iterable[Any] | None = None, bufmaxsize: int | None = 1000
    ) -> None:
        super().__init__(iterable or ())
        self.maxsize = maxsize
        self.bufmaxsize = bufmaxsize
        self.total = sum(len(buffer) for buffer in self.values())
        self.evict()

    def put(self, key: Any, item: Any) -> None:
        """Add an item to a key's queue."""
        self.extend(key, [item])

    def extend(self, key: Any, it: Iterable[Any]) -> None:
        """Add items to a key's queue."""
        buffer = self.setdefault(key, self.Buffer(self.bufmaxsize))
        before = len(buffer)
        buffer.extend(it)
        self.total += len(buffer) - before
        self.move_to_end(key)
        self.evict()

    def take(self, key: Any, *default: Any) -> Any:
        """Take the first item of a key's queue; the default when there is none.

        Raises:
            Empty: There is none, and no default.
        """
        buffer = self.get(key)
        if not buffer:
            if default:
                return default[0]
            raise self.Empty
        item = buffer.take()
        self.total -= 1
        if buffer:
            self.move_to_end(key)
        else:
            del self[key]
        return item

    def evict(self) -> None:
        """Drop what is too much, of the longest unused key first."""
        while self.maxsize is not None and self.total > self.maxsize:
            key = self._LRUkey()
            self[key].take()
            self.total -= 1
            if not self[key]:
                del self[key]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.total}/{self.maxsize}>"
