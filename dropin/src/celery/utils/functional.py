"""Functions of functions, lists and iterators."""

from __future__ import annotations

import copy
import inspect
from collections import UserList
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Self, TypeVar

from kombu.utils.functional import LRUCache, dictfilter, is_list, lazy, maybe_evaluate, maybe_list, memoize

__all__ = (
    "LRUCache",
    "chunks",
    "dictfilter",
    "first",
    "firstmethod",
    "fun_accepts_kwargs",
    "head_from_fun",
    "is_list",
    "lazy",
    "mattrgetter",
    "maybe",
    "maybe_evaluate",
    "maybe_list",
    "memoize",
    "mlazy",
    "noop",
    "padlist",
    "regen",
    "uniq",
)

T = TypeVar("T")
Function = Callable[..., Any]  # whatever a program has


class DummyContext:
    """A context that does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class mlazy(lazy):  # type: ignore[misc]  # noqa: N801 - kombu's has no types; Celery's name
    """A value that is computed when it is first asked for, and once only."""

    evaluated: bool = False
    _value: Any = None

    def evaluate(self) -> Any:  # Any: what the function returns
        """Return the value."""
        if not self.evaluated:
            self._value = super().evaluate()
            self.evaluated = True
        return self._value


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def pass1(arg: T, *args: Any, **kwargs: Any) -> T:
    """Return the first argument."""
    return arg


def evaluate_promises(it: Iterable[Any]) -> Iterator[Any]:
    """Yield values, those that are lazy computed."""
    for value in it:
        yield value.evaluate() if isinstance(value, mlazy) else value


def first(predicate: Function | None, it: Iterable[Any]) -> Any:  # Any: an item of the iterable, or None
    """Return the first item for which a predicate holds (that is not None, without one); None for none."""
    holds = predicate or (lambda value: value is not None)
    return next((value for value in evaluate_promises(it) if holds(value)), None)


def firstmethod(method: str, on_call: Function | None = None) -> Function:
    """Return a function that calls a method of each object of a list until one returns something.

    Args:
        method: The method's name.
        on_call: Called instead, with the bound method and the arguments.
    """

    def match(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:  # Any: what the method returns
        for obj in it:
            bound = getattr(maybe_evaluate(obj), method, None)
            if bound is not None:
                reply = on_call(bound, *args, **kwargs) if on_call else bound(*args, **kwargs)
                if reply is not None:
                    return reply
        return None

    return match


def chunks(it: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield lists of ``n`` items, the last one may be shorter."""
    iterator = iter(it)
    while chunk := list(islice(iterator, n)):
        yield chunk


def padlist(container: Iterable[Any], size: int, default: Any = None) -> list[Any]:
    """Return the first items of a list, with a default for those that it has not."""
    items = list(islice(container, size))
    return items + [default] * (size - len(items))


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that returns attributes of an object by name, None for those that it has not."""
    return lambda obj: {name: getattr(obj, name, None) for name in attrs}


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Yield each item once, in order."""
    seen: set[T] = set()
    for item in it:
        if item not in seen:
            seen.add(item)
            yield item


def lookahead(it: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Yield each item with the one that follows it; None follows the last."""
    iterator = iter(it)
    for first_one in iterator:
        current = first_one
        for following in iterator:
            yield current, following
            current = following
        yield current, None


def regen(it: Iterable[Any]) -> Any:  # Any: a list or tuple as it is, else a list that fills itself
    """Return a list of an iterator that is read no further than asked; a list or tuple as it is."""
    return it if isinstance(it, (list, tuple)) else _regen(it)


class _regen(UserList[Any], list[Any]):  # type: ignore[misc]  # noqa: N801 - a list for isinstance(); Celery's name
    """A list that fills itself from an iterator."""

    def __init__(self, it: Iterable[Any]) -> None:
        self._source = iter(it)
        self._read: list[Any] = []
        self._ended = False

    @property
    def data(self) -> list[Any]:  # type: ignore[override]  # UserList has an attribute
        """All items."""
        self._read_until(None)
        return self._read

    def _read_until(self, count: int | None) -> None:
        while not self._ended and (count is None or len(self._read) < count):
            try:
                self._read.append(next(self._source))
            except StopIteration:
                self._ended = True

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            self._read_until(index + 1)
            return self._read[index]
        return self.data[index]

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while True:
            self._read_until(position + 1)
            if position >= len(self._read):
                return
            yield self._read[position]
            position += 1

    def __bool__(self) -> bool:
        self._read_until(1)
        return bool(self._read)

    def __repr__(self) -> str:
        shown = ", ".join([*map(repr, self._read), *([] if self._ended else ["..."])])
        return f"<_regen: [{shown}]>"

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (self.data,)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        memo[id(self)] = copied = [copy.deepcopy(item, memo) for item in self.data]
        return copied


def seq_concat_item(seq: Any, item: Any) -> Any:  # Any: a list or a tuple
    """Return a list or tuple with an item more."""
    return (*seq, item) if isinstance(seq, tuple) else [*seq, item]


def seq_concat_seq(a: Any, b: Any) -> Any:  # Any: lists or tuples
    """Return two lists or tuples as one, of the first's type."""
    return (*a, *b) if isinstance(a, tuple) else [*a, *b]


def maybe(typ: Callable[[Any], T], val: Any) -> T | None:
    """Return a value converted; None as it is."""
    return None if val is None else typ(val)


def is_numeric_value(value: Any) -> bool:
    """Return whether it is a number, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- what functions take ---------------------------------------------------------------------------------


def head_from_fun(fun: Function, bound: bool = False) -> Function:
    """Return a function that takes what another one does, and checks just that.

    Args:
        fun: The other function.
        bound: Whether its first argument is given by Python.
    """
    signature = inspect.signature(fun)
    if bound:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])

    def head(*args: Any, **kwargs: Any) -> int:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{head.__name__}() {exc}") from exc
        return 1

    head.__name__ = getattr(fun, "__name__", type(fun).__name__)
    head.__signature__ = signature  # type: ignore[attr-defined]  # what `inspect` looks for
    return head


def arity_greater(fun: Function, n: int) -> bool:
    """Return whether a function takes more than ``n`` positional arguments."""
    spec = inspect.getfullargspec(fun)
    return spec.varargs is not None or len(spec.args) > n


def fun_takes_argument(name: str, fun: Function, position: int | None = None) -> bool:
    """Return whether a function takes an argument of a name, or one at a position (from 1)."""
    spec = inspect.getfullargspec(fun)
    if spec.varkw or spec.varargs:
        return True
    return position <= len(spec.args) if position else name in spec.args


def fun_accepts_kwargs(fun: Function) -> bool:
    """Return whether a function takes any keyword argument."""
    return any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(fun).parameters.values()
    )
