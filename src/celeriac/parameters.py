"""The parameters of a function, to find a wrong call before it is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters:
    """What a function can be called with; says what is wrong in Python's own words.

    Args:
        function: Whose calls are checked.
        skip_first: Leave out the first parameter: ``self`` of a bound task.
    """

    def __init__(self, function: Callable[..., Any], *, skip_first: bool = False) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        parameters = list(inspect.signature(function).parameters.values())[1 if skip_first else 0 :]
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        self.positional = [p.name for p in positional]
        self.positional_only = {p.name for p in positional if p.kind is inspect.Parameter.POSITIONAL_ONLY}
        self.required = [p.name for p in positional if p.default is inspect.Parameter.empty]
        keyword_only = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        self.keyword_only = {p.name for p in keyword_only}
        self.required_keywords = [p.name for p in keyword_only if p.default is inspect.Parameter.empty]
        self.any_positional = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        self.any_keyword = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._fewest = len(self.required)
        self._most = len(positional) if not self.any_positional else 1 << 62
        self._plain = not self.required_keywords

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
        most = len(self.positional)
        if self._fewest == most:
            takes, plural = str(most), most != 1
        else:
            takes, plural = f"from {self._fewest} to {most}", True
        return (
            f"{self.name}() takes {takes} positional argument{'s' if plural else ''} "
            f"but {given} {'was' if given == 1 else 'were'} given"
        )


def _enumerate(names: list[str]) -> str:
    if len(names) == 2:
        return f"{names[0]} and {names[1]}"
    return f"{', '.join(names[:-1])}, and {names[-1]}"
