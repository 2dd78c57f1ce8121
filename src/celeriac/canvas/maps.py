"""One message for many calls: ``map``, ``starmap`` and ``chunks``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from celeriac.canvas.group import group
from celeriac.canvas.signature import Signature, maybe_signature


class _Map(Signature):
    """A task that runs another one for every item, one after the other, and returns the list of results."""

    _task_name: ClassVar[str] = ""

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        app = options.pop("app", None)
        inner = _as_signature(task)
        super().__init__(
            self._task_name,
            (),
            {"task": inner, "it": it if isinstance(it, (list, tuple)) else list(it)},
            options,
            immutable=True,
            app=app if app is not None else inner._app,
        )

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        return type(self)(app=self._app, **kwargs, **options)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it, routed as the task that it runs."""
        return super().apply_async(args, kwargs, route_name or _name_of(self.kwargs["task"]), **options)


class xmap(_Map):  # noqa: N801 - Celery's name
    """Runs a task with each item as its argument."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        """Show it as a list comprehension."""
        return f"[{_name_of(self.kwargs['task'])}(x) for x in {self.kwargs['it']!r}]"


class xstarmap(_Map):  # noqa: N801 - Celery's name
    """Runs a task with the elements of each item as its arguments."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        """Show it as a list comprehension."""
        return f"[{_name_of(self.kwargs['task'])}(*x) for x in {self.kwargs['it']!r}]"


@Signature.register_type("chunks")
class chunks(Signature):  # noqa: N801 - Celery's name
    """Calls with many lists of arguments, ``n`` of them in one message.

    Args:
        task: The task.
        it: The lists of arguments.
        n: How many go into one message.
        **options: Options for sending.
    """

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        app = options.pop("app", None)
        inner = _as_signature(task)
        super().__init__(
            "celery.chunks",
            (),
            {"task": inner, "it": it, "n": n},
            options,
            immutable=True,
            app=app if app is not None else inner._app,
        )
        self["subtask_type"] = "chunks"

    def __call__(self, **options: Any) -> Any:
        """Send it."""
        return self.apply_async(**options)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the messages in batches and return their GroupResult: a list of lists.

        Arguments that come from a generator are taken while it sends, and not kept.
        """
        return group.streamed(self._parts(), self.app).apply_async(
            route_name=route_name or _name_of(self.kwargs["task"]), **{**self.options, **options}
        )

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run it right here."""
        return self.group().apply(**{**self.options, **options})

    def group(self) -> group:
        """Return it as a group with one starmap for each message."""
        return group(list(self._parts()), app=self._app)

    def as_part(self) -> Signature:
        """Return it as a group: there is no one task whose result could be waited for."""
        made = self.group()
        for member in made.tasks:
            member.set(**self.options)
        return made

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send it at once."""
        return cls(task, it, n, app=app)()

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> chunks:
        """Return the chunks of a dict form."""
        return cls(app=app, **d["kwargs"], **d.get("options") or {})

    def _parts(self) -> Iterator[xstarmap]:
        inner, items, size = self.kwargs["task"], iter(self.kwargs["it"]), self.kwargs["n"]
        for part in iter(lambda: list(itertools.islice(items, size)), []):
            yield xstarmap(inner, part, app=self._app)

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        return type(self)(app=self._app, **kwargs, **options)


def send_map(task: Any, calls: Iterable[Sequence[Any]], options: dict[str, Any]) -> Any:
    """Send one call for each list of arguments, while they are being made, and return the GroupResult.

    Args:
        task: The task.
        calls: The lists of arguments.
        options: As for `group.apply_async`.
    """
    return group.streamed((Signature(task, args) for args in calls), task.app).apply_async(**options)


def _as_signature(task: Any) -> Any:
    """Return a signature of a task, a signature, a dict form or a name."""
    return maybe_signature(task) if isinstance(task, dict) else Signature(task)


def _name_of(task: Any) -> str:
    return str(task["task"] if isinstance(task, dict) else getattr(task, "name", task))
