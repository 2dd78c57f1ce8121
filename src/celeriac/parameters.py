"""The parameters of a function, to find a wrong call before it is sent."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType, MethodType
from typing import Any

_ANY_POSITIONAL = 0x04  # CO_VARARGS, CO_VARKEYWORDS and CO_COROUTINE, as `inspect` names them
_ANY_KEYWORD = 0x08
_COROUTINE = 0x80


class Parameters:
    """What a function can be called with; says what is wrong in Python's own words.

    Args:
        function: Whose calls are checked.
        skip_first: Leave out the first parameter: ``self`` of a bound task.
    """

    def __init__(self, function: Callable[..., Any], *, skip_first: bool = False) -> None:
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._filled = int(skip_first)  # `self`, which Python counts when there are too many
        self.positional: list[str] = []
        self.positional_only: set[str] = set()
        self.required: list[str] = []
        self.keyword_only: set[str] = set()
        self.required_keywords: list[str] = []
        self.any_positional: bool = False
        self.any_keyword: bool = False
        plain, skip = _plain_function(function)
        self._filled += skip
        if plain is not None:
            self._read_code(plain, skip + skip_first)
        else:
            self._read_signature(function, int(skip_first))
        self._fewest = len(self.required)
        self._most = len(self.positional) if not self.any_positional else 1 << 62
        self._plain = not self.required_keywords

    def _read_code(self, function: FunctionType, skip: int) -> None:
        # What `inspect.signature` would say, without the 7 ms that importing `inspect` costs every client.
        code: CodeType = function.__code__
        count, keyword_count = code.co_argcount, code.co_kwonlyargcount
        names = code.co_varnames
        self.positional = list(names[skip:count])
        self.positional_only = set(names[skip : code.co_posonlyargcount])
        self.required = list(names[skip : count - len(function.__defaults__ or ())])
        keywords = names[count : count + keyword_count]
        self.keyword_only = set(keywords)
        self.required_keywords = [name for name in keywords if name not in (function.__kwdefaults__ or ())]
        self.any_positional = bool(code.co_flags & _ANY_POSITIONAL)
        self.any_keyword = bool(code.co_flags & _ANY_KEYWORD)

    def _read_signature(self, function: Callable[..., Any], skip: int) -> None:
        inspect = importlib.import_module("inspect")
        try:
            parameters = list(inspect.signature(function).parameters.values())[skip:]
        except ValueError:  # written in C and without a signature: it says itself what it takes
            self.any_positional = self.any_keyword = True
            return
        for p in parameters:
            required = p.default is p.empty
            if p.kind is p.VAR_POSITIONAL:
                self.any_positional = True
            elif p.kind is p.VAR_KEYWORD:
                self.any_keyword = True
            elif p.kind is p.KEYWORD_ONLY:
                self.keyword_only.add(p.name)
                self.required_keywords.extend([p.name] if required else [])
            else:
                self.positional.append(p.name)
                self.required.extend([p.name] if required else [])
                if p.kind is p.POSITIONAL_ONLY:
                    self.positional_only.add(p.name)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check a call.

        Raises:
            TypeError: With the text that calling the function would have given.
        """
        if not kwargs and self._plain and self._fewest <= len(args) <= self._most:
            return
        by_keyword = [name for name in self.positional if name not in self.positional_only]
        filled = set(self.positional[: len(args)])
        for name in kwargs:
            if name in filled and name not in self.positional_only:
                raise TypeError(f"{self.name}() got multiple values for argument {name!r}")
            if name not in self.keyword_only and name not in by_keyword and not self.any_keyword:
                raise TypeError(f"{self.name}() got an unexpected keyword argument {name!r}")
        if len(args) > self._most:
            raise TypeError(self._too_many(len(args)))
        passed = filled.union(name for name in kwargs if name not in self.positional_only)
        self._require("positional", [name for name in self.required if name not in passed])
        self._require("keyword-only", [name for name in self.required_keywords if name not in kwargs])

    def takes_positional(self, count: int) -> bool:
        """Return whether it can be called with that many positional arguments, or more."""
        return self._most >= count

    def _require(self, kind: str, missing: list[str]) -> None:
        if missing:
            names = [repr(name) for name in missing]
            listed = names[0] if len(names) == 1 else _enumerate(names)
            plural = "s" if len(names) > 1 else ""
            raise TypeError(f"{self.name}() missing {len(names)} required {kind} argument{plural}: {listed}")

    def _too_many(self, given: int) -> str:
        given += self._filled
        fewest, most = self._fewest + self._filled, len(self.positional) + self._filled
        if fewest == most:
            takes, plural = str(most), most != 1
        else:
            takes, plural = f"from {fewest} to {most}", True
        return (
            f"{self.name}() takes {takes} positional argument{'s' if plural else ''} "
            f"but {given} {'was' if given == 1 else 'were'} given"
        )


def takes_any_keyword(function: Callable[..., Any]) -> bool:
    """Return whether a function takes ``**kwargs``."""
    return Parameters(function).any_keyword


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling a function makes a coroutine."""
    plain, _ = _plain_function(function, follow=False)
    return plain is not None and bool(plain.__code__.co_flags & _COROUTINE)


def _plain_function(function: Any, *, follow: bool = True) -> tuple[FunctionType | None, int]:
    """Return the Python function behind a function or method, and how many parameters it fills already."""
    skip = 0
    for _ in range(100):  # a loop of `__wrapped__` is somebody's mistake and no reason to hang
        if isinstance(function, MethodType):
            function, skip = function.__func__, 1
        elif not isinstance(function, FunctionType) or "__signature__" in function.__dict__:
            return None, skip
        elif follow and "__wrapped__" in function.__dict__:
            function = function.__dict__["__wrapped__"]
        else:
            return function, skip
    return None, skip


def _enumerate(names: list[str]) -> str:
    if len(names) == 2:
        return f"{names[0]} and {names[1]}"
    return f"{', '.join(names[:-1])}, and {names[-1]}"
