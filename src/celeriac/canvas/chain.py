"""One call after the other, each with the result of the one before."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from celeriac.canvas.chord import _chord, root_of
from celeriac.canvas.group import adopted, app_of, group
from celeriac.canvas.signature import Signature, listed, maybe_signature, part
from celeriac.canvas.stamps import StampingVisitor

# Options of a chain that are for its last step alone.
_FOR_LAST = ("task_id", "group_id", "chord", "group_index")


@Signature.register_type("chain")
class _chain(Signature):  # noqa: N801 - Celery's name
    """Calls that run one after the other; each gets the result of the one before as its first argument.

    Args:
        *tasks: The steps, or one iterable of them.
        **options: Options for sending the first step; ``task_id`` is for the last one.
    """

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.pop("app", None)
        steps: Any = tasks[0] if len(tasks) == 1 and not isinstance(tasks[0], dict) else tasks
        super().__init__("celery.chain", (), {"tasks": [part(step) for step in steps]}, options, app=app)
        self["subtask_type"] = "chain"

    @property
    def tasks(self) -> list[Any]:
        """The steps."""
        return cast("list[Any]", self.kwargs["tasks"])

    @tasks.setter
    def tasks(self, tasks: list[Any]) -> None:
        self.kwargs["tasks"] = tasks

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or the first that a step has."""
        return app_of(self, self.tasks)

    @property
    def parts(self) -> int:
        """How many tasks have to end before it has, as a member of a chord's header."""
        return next((step.parts for step in reversed(self.tasks) if step.parts), 0)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it, with these arguments before those of the first step."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the first step, which takes the others along; return the result of the last one."""
        if not self.tasks:
            return None
        app = self.app
        if self.immutable:
            args, kwargs = None, None
        if app.conf.task_always_eager:
            with app.allow_join():
                return self.apply(args, kwargs, **options)
        return self.run(args, kwargs, **options)

    def run(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Freeze all steps and send the first one, with the others in its message."""
        given = {**self.options, **options}
        for_last = {name: given.pop(name, None) for name in _FOR_LAST}
        following = given.pop("chain", None)
        copy = self.clone()
        copy.options.clear()
        copy.tasks = copy.unrolled()
        _link(copy.tasks, given.pop("link", None), given.pop("link_error", None))
        results = copy._freeze_steps(root_id=given.get("root_id"), **for_last)
        first, *rest = copy.tasks
        waiting = [*(following or ()), *reversed(rest)]
        if waiting or following is not None:
            given["chain"] = waiting
        result = first.apply_async(args, kwargs, **given)
        return results[-1] if rest else result

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run all steps right here."""
        copy = self.clone()
        for_last = {name: options.pop(name, None) for name in _FOR_LAST}
        copy.tasks = copy.unrolled()
        _link(copy.tasks, copy.options.get("link"), copy.options.get("link_error"))
        _link(copy.tasks, options.pop("link", None), options.pop("link_error", None))
        if copy.tasks and for_last["task_id"] is not None:
            copy.tasks[-1].set(task_id=for_last["task_id"])
        last: Any = None
        for step in copy.tasks:
            if last is None:
                result = step.apply(args, kwargs, **options)
            else:
                result = step.apply((last.get(disable_sync_subtasks=False),), **options)
                result.parent = last
            last = result
        return last

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give all steps their ids, in place; return the result of the last one."""
        kept = self.options.get
        results = self._freeze_steps(
            task_id=self.options.pop("task_id", None) or _id,
            group_id=group_id or kept("group_id"),
            chord=kept("chord") if chord is None else chord,
            group_index=kept("group_index") if group_index is None else group_index,
            root_id=root_id,
        )
        return results[-1] if results else None

    _freeze = freeze

    @property
    def ends_in_group(self) -> bool:
        """Whether its result is that of several calls."""
        last = self.tasks[-1] if self.tasks else None
        while isinstance(last, group) and len(last.tasks) == 1:
            last = last.tasks[0]  # as `unrolled` has it
        return last is not None and bool(last.ends_in_group)

    @property
    def group_id(self) -> str | None:
        """The id of the group that its last step belongs to, once it was frozen."""
        return self.options.get("group_id") or (self.tasks[-1].group_id if self.tasks else None)

    @property
    def id(self) -> str | None:
        """The id of the last step's task, once it was frozen."""
        return self.tasks[-1].id if self.tasks else None

    def unchained(self) -> list[Any]:
        """Return copies of the steps, with what is linked to the chain linked to them."""
        copy = self.clone()
        _link(copy.tasks, copy.options.get("link"), copy.options.get("link_error"))
        return copy.tasks

    unchain_tasks = unchained

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> None:
        """Stamp its steps in place."""
        more = visitor.on_chain_start(self, **headers) if visitor is not None else None
        stamped = self._stamp_headers(more, append_stamps, self_headers=False, **headers)
        self.stamp_links(visitor, append_stamps, **stamped)
        for step in self.tasks:
            step.stamp(visitor, append_stamps, **stamped)
        if visitor is not None:
            visitor.on_chain_end(self, **stamped)

    def __repr__(self) -> str:
        """Show the steps."""
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return " | ".join(map(repr, self.tasks))

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> _chain:
        """Return the chain of a dict form."""
        made = _chain(list(d["kwargs"]["tasks"]), app=app, **d.get("options") or {})
        made["immutable"] = bool(d.get("immutable"))
        return made

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        steps = [maybe_signature(step, clone=True) for step in kwargs["tasks"]]
        if args and steps:
            steps[0] = steps[0].clone(args)
        return super()._copy_with((), {**kwargs, "tasks": steps}, options)

    def unrolled(self) -> list[Any]:
        """Return the steps without chains inside; a group with one member is that member."""
        steps: list[Any] = []
        for step in self.tasks:
            adopted(step, self)
            if isinstance(step, _chain):
                inner = step.unrolled()
                _link(inner, step.options.pop("link", None), step.options.pop("link_error", None))
                steps.extend(inner)
            elif isinstance(step, group) and len(step.tasks) == 1:
                member = adopted(step.tasks[0], self)
                steps.extend(_chain([member], app=self._app).unrolled())
            else:
                steps.append(step)
        return _with_chords(steps)

    def _freeze_steps(
        self,
        task_id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        group_index: int | None = None,
        root_id: str | None = None,
    ) -> list[Any]:
        self.tasks = self.unrolled()
        if chord is not None:
            # An empty group has no task that could tell the chord of its end.
            while self.tasks and not self.tasks[-1].parts:
                self.tasks.pop()
        results: list[Any] = []
        for position, step in enumerate(self.tasks):
            if position < len(self.tasks) - 1:
                result = step.freeze(root_id=root_id)
            else:
                result = step.freeze(
                    task_id, group_id=group_id, chord=chord, root_id=root_id, group_index=group_index
                )
            if results:
                root_of(result).parent = results[-1]
            results.append(result)
        return results


class chain(_chain):  # noqa: N801 - Celery's name
    """Calls that run one after the other: ``chain(a, b, c)`` is ``a | b | c``.

    What comes out is what ``|`` makes of it: a group that is followed by a call becomes a chord.
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """Join the steps, when there is more than one."""
        if not options and tasks:
            if len(tasks) != 1:
                return _joined(tasks)
            if not isinstance(tasks[0], dict):
                return _joined(tasks[0])
        return super().__new__(cls)


def _joined(steps: Iterable[Any]) -> Any:
    """Return what ``|`` makes of the steps, one after the other."""
    # Who follows whom needs all the composites, this one too.
    joining = importlib.import_module("celeriac.canvas.joining")
    return joining.join_all(_chain(), map(maybe_signature, steps))


def _link(steps: list[Any], link: Any, link_error: Any) -> None:
    """Link to steps what was linked to their chain: callbacks to the last one, errbacks to all."""
    if link and steps:
        last = steps[-1]
        for call in last.flat() if isinstance(last, group) else [last]:
            call.extend_list_option("link", link)
    for step, following in itertools.zip_longest(steps, steps[1:]):
        for errback in listed(link_error):
            if following is None:
                step.link_error(errback)
            else:
                _link_error_before(step, errback)


def _link_error_before(step: Any, errback: Any) -> None:
    """Link an errback to a step that something follows.

    A group that it ends in becomes a header; what follows is the body, which fails with it and is told once.
    """
    if isinstance(step, group):
        return
    if isinstance(step, _chord) and step.body is not None and step.ends_in_group:
        if step.app is None or not step.app.conf.task_allow_error_cb_on_chord_header:
            _link_error_before(step.body, errback)
            return
    elif isinstance(step, _chain) and step.ends_in_group:
        for inner in step.tasks:
            _link_error_before(inner, errback)
        return
    step.link_error(errback)


def _with_chords(steps: list[Any]) -> list[Any]:
    """Return the steps, each group that is followed by another step made a chord with that as its body."""
    done: list[Any] = []
    for step in reversed(steps):
        if done and isinstance(step, group):
            done.append(_chord(step, body=done.pop(), app=step._app))
        elif done and step.ends_in_group:
            copy = step.clone()
            copy.body = copy.body | done.pop()
            done.append(copy)
        else:
            done.append(step)
    return done[::-1]
