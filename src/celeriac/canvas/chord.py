"""Several calls at once, then one with all their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from celeriac.canvas.group import Members, adopted, app_of, group
from celeriac.canvas.signature import Signature, listed, maybe_signature, part
from celeriac.canvas.stamps import StampingVisitor

# Options of a chord that are for its body alone.
_BODY_ONLY = frozenset({"chain", "chord", "task_id", "group_id", "group_index", "link", "link_error"})


# Options that say how it is sent now; its body will be sent by another task.
_HEADER_ONLY = frozenset({"parent_id", "add_to_parent", "producer"})


@Signature.register_type("chord")
class _chord(Signature):  # noqa: N801 - Celery's name
    """A group (the header), and a call with the list of its results (the body).

    Args:
        header: Signatures, a group, or an iterable.
        body: The signature to apply with the results.
        task: Accepted for Celery's sake.
        args: Arguments for the members of the header.
        kwargs: Accepted for Celery's sake.
        app: The app that sends it.
        **options: Options for header and body.
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(
            "celery.chord",
            args,
            {"kwargs": dict(kwargs or {}), "header": _header(header), "body": part(body)},
            options,
            app=app,
        )
        self["subtask_type"] = "chord"

    @property
    def tasks(self) -> Any:
        """The header: a list of signatures, or a group once it was frozen."""
        return self.kwargs["header"]

    @tasks.setter
    def tasks(self, tasks: Any) -> None:
        self.kwargs["header"] = tasks

    @property
    def body(self) -> Any:
        """The signature to apply with the results."""
        return self.kwargs["body"]

    @body.setter
    def body(self, body: Any) -> None:
        self.kwargs["body"] = body

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or that of a member of the header, or of the body."""
        members = list(self.tasks.tasks if isinstance(self.tasks, group) else self.tasks)
        return app_of(self, [*members, *([self.body] if self.body is not None else [])])

    @property
    def ends_in_group(self) -> bool:
        """Whether its result is that of several calls."""
        return self.body is not None and bool(self.body.ends_in_group)

    @property
    def parts(self) -> int:
        """How many tasks have to end before it has, as a member of a chord's header."""
        return self.body.parts if self.body is not None else 1

    @property
    def group_id(self) -> str | None:
        """The id of the group that its body belongs to, once it was frozen."""
        return self.options.get("group_id") or (self.body.group_id if self.body is not None else None)

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with another body if one is given."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Send the header in one batch and return the result of the body.

        Args:
            args: Come before the arguments of the header's members.
            kwargs: ``body`` stands in place of its own body.
            route_name: Accepted for Celery's sake.
            task_id: The id of the body's task.
            **options: For header and body.

        Raises:
            NotImplementedError: There is no result backend, or it cannot count the parts.
        """
        kwargs = dict(kwargs or {})
        body = maybe_signature(part(kwargs.pop("body", None)) or self.body, clone=True)
        if self.app is None:
            self._app = body.app
        app = self.app
        adopted(body, self)
        args = tuple(self.args) if self.immutable else (*(args or ()), *self.args)
        if app.conf.task_always_eager:
            with app.allow_join():
                return self.apply(args, kwargs, body=body, task_id=task_id, **options)
        header = self.as_group()
        given = {**self.options, **options}
        # Frozen as a step of a chain, its own id is that of its header; the body's comes from the caller.
        given.pop("task_id", None)
        return self.run(header, body, args, task_id=task_id, **given)

    def run(
        self,
        header: group,
        body: Signature,
        partial_args: Iterable[Any],
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Prepare the backend, then send the header; the body follows when all its parts have come in."""
        app = self.app
        for callback in listed(options.pop("link", None)):
            body.link(callback)
        for errback in listed(options.pop("link_error", None)):
            body.link_error(errback)
        # Its parent will be the part that ends last, not the one that sends the header.
        kept = {k: value for k, value in options.items() if k not in _HEADER_ONLY and value is not None}
        body.options.update(kept)
        body_result = body.freeze(task_id)
        if not header.parts:
            body_result = body.apply_async(([],), parent_id=options.get("parent_id"))
            body_result.parent = app.GroupResult(header.options.get("task_id") or app.new_id(), [])
            return body_result
        group_id = header.options.get("task_id") or app.new_id()
        if body.group_id is None:
            body.options["group_id"] = group_id
        shared = {key: value for key, value in options.items() if key not in _BODY_ONLY}
        add_to_parent = shared.pop("add_to_parent", True)
        given = {**header.options, **shared, "chord": body}
        members = Members(header, group_id, given)
        placed = list(members.placed())
        app.start_chord(group_id, header.parts, members.result_to_come(placed).as_tuple(), body)
        body_result.parent = members.send(placed, partial_args, None, add_to_parent)
        return body_result

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> Any:
        """Run header and body right here.

        Raises:
            Exception: What a member of the header has failed with; errbacks of the body were called.
        """
        body = maybe_signature(body if body is not None else self.body, app=self.app, clone=True)
        header = self.as_group().clone()
        task_id = options.pop("task_id", None)
        if task_id is not None:
            body.set(task_id=task_id)
        shared = {k: v for k, v in options.items() if k not in _BODY_ONLY}
        try:
            parts = header.run_members(args, None, shared)
            results = [part.get(propagate=propagate, disable_sync_subtasks=False) for part in parts]
        except Exception as exc:
            self.app.give_up_here(body, exc)
            raise
        return body.apply((results,), **shared)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give header and body their ids; return the result of the body, whose parent is the header's."""
        header = self.tasks = self.as_group()
        body_result = None
        if self.body is not None:
            adopted(self.body, self)
            kept = self.options.get
            body_result = self.body.freeze(
                _id,
                group_id=group_id or kept("group_id"),
                chord=kept("chord") if chord is None else chord,
                root_id=root_id,
                group_index=kept("group_index") if group_index is None else group_index,
            )
        # Its members get the body when it is sent: a copy in each, now, would double with every chord inside.
        header_result = header.freeze(root_id=root_id, parent_id=parent_id)
        self.options["task_id"] = header.options["task_id"]
        if body_result is None:
            return header_result
        _root_of(body_result).parent = header_result
        return body_result

    _freeze = freeze

    def link(self, callback: Any) -> Any:
        """Have a signature applied with the result of the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Have a signature applied when the chord fails.

        With ``task_allow_error_cb_on_chord_header`` it is linked to the members of the header too.
        """
        app = self.app
        if app is not None and app.conf.task_allow_error_cb_on_chord_header:
            for member in self.as_group().tasks:
                member.link_error(maybe_signature(errback, clone=True))
        self.body.link_error(errback)
        return errback

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> None:
        """Stamp the members of the header in place, and the body where there is a visitor."""
        header = self.as_group()
        more = visitor.on_chord_header_start(self, **headers) if visitor is not None else None
        stamped = self._stamp_headers(more, append_stamps, self_headers=False, **headers)
        self.stamp_links(visitor, append_stamps, **stamped)
        for member in header.tasks:
            member.stamp(visitor, append_stamps, **stamped)
        if visitor is None:
            return
        visitor.on_chord_header_end(self, **stamped)
        if self.body is not None:
            more = visitor.on_chord_body(self, **stamped)
            stamped = self._stamp_headers(more, append_stamps, self_headers=False, **stamped)
            self.body.stamp(visitor, append_stamps, **stamped)

    def set_immutable(self, immutable: bool) -> None:
        """Have the members of the header ignore arguments given when it is applied."""
        for member in self.as_group().tasks:
            member.set_immutable(immutable)

    def __repr__(self) -> str:
        """Show the body, called with the header."""
        members = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        if not self.body:
            return f"<chord without body: {members!r}>"
        if self.body.subtask_type == "chain" and self.body.tasks:
            first, *rest = self.body.tasks
            return f"%({' | '.join([first.reprcall(members), *map(repr, rest)])})"
        return f"%{self.body.reprcall(members)}"

    def __length_hint__(self) -> int:
        """Return how many parts the header has; ``len()`` is that of the dict, as in Celery."""
        return int(self.as_group().parts)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> _chord:
        """Return the chord of a dict form."""
        fields = d["kwargs"]
        made = cls(
            fields["header"],
            fields.get("body"),
            args=d.get("args"),
            kwargs=fields.get("kwargs"),
            app=app,
            **d.get("options") or {},
        )
        made["immutable"] = bool(d.get("immutable"))
        return made

    def as_group(self) -> Any:
        """Return the header as a group."""
        header = self.tasks
        return adopted(header if isinstance(header, group) else group(header), self)

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        header = kwargs["header"]
        copied = {
            "kwargs": dict(kwargs.get("kwargs") or {}),
            "header": header.clone()
            if isinstance(header, group)
            else [maybe_signature(member, clone=True) for member in header],
            "body": maybe_signature(kwargs["body"], clone=True),
        }
        return super()._copy_with(args, copied, options)


chord = _chord


def _header(header: Any) -> Any:
    """Return the members; a group that has options stays one, or they would be lost."""
    if isinstance(header, dict):
        made = part(header)
        if not isinstance(made, group):
            return [made]
        return made if made.options or made.immutable else made.tasks
    return [part(member) for member in header]


def _root_of(result: Any) -> Any:
    """Return the first result of a workflow, the one that a step before it becomes the parent of."""
    while getattr(result, "parent", None) is not None:
        result = result.parent
    return result


root_of = _root_of
__all__ = ["_chord", "chord", "root_of"]
