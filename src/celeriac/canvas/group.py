"""Several calls at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

from celeriac.canvas.signature import Signature, maybe_signature, part
from celeriac.canvas.stamps import StampingVisitor

# Options that a group keeps for itself: its members get their own.
_OWN_OPTIONS = frozenset({"task_id", "chord", "group_id", "group_index", "chain", "link", "link_error"})


@Signature.register_type("group")
class group(Signature):  # noqa: N801 - Celery's name
    """Several calls that are sent together and run side by side.

    Args:
        *tasks: Signatures, or one iterable of them.
        **options: Options for all of them; ``task_id`` is the group's own id.
    """

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.pop("app", None)
        members: Any = tasks
        if len(tasks) == 1:
            members = tasks[0]
            if isinstance(members, group):
                members = members.tasks
            elif isinstance(members, dict):
                members = [maybe_signature(members, clone=True)]
        kept = like(members, map(part, members))
        super().__init__("celery.group", (), {"tasks": kept}, options, app=app)
        self["subtask_type"] = "group"

    @classmethod
    def streamed(cls, members: Iterable[Any], app: Any) -> Self:
        """Return a group that is sent or run once, whose members are made meanwhile, not kept.

        It is not a value: it cannot be encoded, and has no members once it was sent.
        """
        made = cls(app=app)
        made.kwargs["tasks"] = iter(members)
        return made

    @property
    def tasks(self) -> Sequence[Any]:
        """The members."""
        return cast("Sequence[Any]", self.kwargs["tasks"])

    @tasks.setter
    def tasks(self, tasks: Sequence[Any]) -> None:
        self.kwargs["tasks"] = tasks

    @property
    def app(self) -> Any:
        """The app that sends it: its own, or that of its first member."""
        return app_of(self, self.tasks)

    @property
    def ends_in_group(self) -> bool:
        """Whether its result is that of several calls."""
        return True

    @property
    def parts(self) -> int:
        """How many tasks have to end before it has, as a member of a chord's header."""
        return sum(member.parts for member in self.tasks)

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it, with these arguments before those of its members."""
        return self.apply_async(partial_args, **options)

    def apply_async(  # type: ignore[override]  # has more of its own than a single call
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Send all members, hundreds in one batch, and return their GroupResult.

        Raises:
            TypeError: ``link`` or ``link_error`` is given: there is no one task to link them to.
            PartlySent: The broker failed after it had taken a part of the members.
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app is None:
            raise TypeError("An empty group belongs to no app: nothing can be sent, and nothing waited for.")
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        if producer is not None:
            options["producer"] = producer
        given = {**self.options, **options}
        id = given.get("task_id") or app.new_id()
        members = Members(self, id, given)
        return members.send(members.placed(), args, kwargs, add_to_parent)

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run all members right here, one after the other.

        Raises:
            Exception: What a step of a chain, or a part of a chord, failed with; later members do not run.
        """
        app = self.app
        results = self.run_members(args, kwargs, options)
        if len(results) == 1 and hasattr(results[0], "results"):
            return results[0]  # as when it is sent
        id = self.options.get("task_id") or (app.new_id() if app is not None else "")
        return app.GroupResult(id, results) if app is not None else results

    def run_members(
        self, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> list[Any]:
        """Run all members right here, and return their results; takes and raises what `apply` does."""
        given = {k: v for k, v in {**self.options, **options}.items() if k not in _OWN_OPTIONS}
        results = [member.apply(args, kwargs, **given) for member in self.clone().flat()]
        return [result for result in results if result is not None]  # that of an empty chain

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give the group and its members their ids; return the GroupResult to come.

        As a member of a chord's header (``group_id`` given) its members join that group instead.
        """
        options = self.options
        id = options.get("task_id") or _id or self.app.new_id()
        options["task_id"] = id
        for name, value in (
            ("chord", chord),
            ("root_id", root_id),
            ("parent_id", parent_id),
            ("group_id", group_id),
            ("group_index", group_index),
        ):
            if value is not None:
                options[name] = value
        index = options.get("group_index") or 0
        results = []
        for member in self.flat():
            result = member.freeze(
                group_id=options.get("group_id") or id,
                chord=options.get("chord"),
                root_id=root_id,
                parent_id=parent_id,
                group_index=index,
            )
            if result is None:
                continue  # an empty chain
            results.append(result)
            index += member.parts
        return self.app.GroupResult(id, results)

    _freeze = freeze

    def flat(self) -> Iterator[Any]:
        """Yield the members, with those of groups inside in their place."""
        for member in self.tasks:
            adopted(member, self)
            if isinstance(member, group):
                yield from member.flat()
            else:
                yield member

    def link(self, callback: Any) -> Any:
        """Have a signature applied when the first member has succeeded; it gets no result."""
        if not self.tasks:
            return None
        return self.tasks[0].link(maybe_signature(callback, clone=True).set(immutable=True))

    def link_error(self, errback: Any) -> Any:
        """Have a signature applied when any member fails."""
        return tuple(member.link_error(maybe_signature(errback, clone=True)) for member in self.tasks)

    def set_immutable(self, immutable: bool) -> None:
        """Have all members ignore arguments given when it is applied."""
        for member in self.tasks:
            member.set_immutable(immutable)

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> None:
        """Stamp its members in place."""
        more = visitor.on_group_start(self, **headers) if visitor is not None else None
        stamped = self._stamp_headers(more, append_stamps, self_headers=False, **headers)
        self.stamp_links(visitor, append_stamps, **stamped)
        for member in self.tasks:
            member.stamp(visitor, append_stamps, **stamped)
        if visitor is not None:
            visitor.on_group_end(self, **stamped)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Have the members begin ``step`` seconds after each other, the first after ``start``.

        From the last one that begins no later than ``stop`` on, they begin together.
        """
        countdown = float(start)
        for member in self.tasks:
            member.set(countdown=countdown)
            if stop is None or countdown + step <= stop:
                countdown += step
        return self

    def __repr__(self) -> str:
        """Show the members."""
        return f"group({self.tasks!r})" if self.tasks else "group(<empty>)"

    def __len__(self) -> int:
        """Return how many members it has."""
        return len(self.tasks)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> group:
        """Return the group of a dict form."""
        members = d["kwargs"]["tasks"]
        kept = members if isinstance(members, tuple) else list(members)
        made = cls(kept, app=app, **d.get("options") or {})
        made["immutable"] = bool(d.get("immutable"))
        return made

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        given = kwargs["tasks"]
        members = [maybe_signature(member, clone=True) for member in given]
        if args:
            members = [member.clone(args) for member in members]
        return super()._copy_with((), {**kwargs, "tasks": like(given, members)}, options)


def like(given: Iterable[Any], members: Iterable[Any]) -> Any:
    """Return members as a tuple where they were given as one, which a repr shows; else as a list."""
    return tuple(members) if isinstance(given, tuple) else list(members)


class Placed(NamedTuple):
    """A member of a group, with its id and its place."""

    member: Any  # Any: a signature; a frozen copy where ``is_copy``
    id: str
    place: int
    is_copy: bool = False
    result: Any = None  # Any: of a copy, what to wait for


class Members:
    """The members of a group on their way: placed one by one, then sent, the group left as it is.

    Args:
        group: The group.
        id: The id that it is sent under.
        given: Its options and those of the call.
    """

    def __init__(self, group: group, id: str, given: Mapping[str, Any]) -> None:
        self._group = group
        self._app = group.app
        self._id = id
        # What `Signature.freeze` is told of each, but for the index.
        self._place = {
            "group_id": group.options.get("group_id") or id,
            **{key: given.get(key) for key in ("chord", "root_id", "parent_id")},
        }
        self._shared = {key: value for key, value in given.items() if key not in _OWN_OPTIONS}

    def placed(self) -> Iterator[Placed]:
        """Yield the members with ids, those of groups inside in their place.

        A plain call is handed on uncopied: its copy would be most of the memory, and a third of the time, of
        sending a large group.
        """
        new_id = self._app.new_id
        index = self._group.options.get("group_index") or 0
        for member in self._group.tasks:
            if type(member) is Signature and member._type is not None and not member["options"]:
                yield Placed(member, new_id(), index)
                index += 1
                continue
            copy = adopted(maybe_signature(member, clone=True), self._group)
            for one in copy.flat() if isinstance(copy, group) else (copy,):
                result = one.freeze(group_index=index, **self._place)
                if result is None:
                    continue  # an empty chain
                yield Placed(one, one.id or "", index, is_copy=True, result=result)
                index += one.parts

    def result_to_come(self, members: Iterable[Placed]) -> Any:
        """Return the GroupResult of members that are placed, before they are sent."""
        wait_for = self._app.AsyncResult
        return self._app.GroupResult(
            self._id, [placed.result if placed.is_copy else wait_for(placed.id) for placed in members]
        )

    def send(
        self,
        members: Iterable[Placed],
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        add_to_parent: bool,
    ) -> Any:
        """Send members that are placed, and return the GroupResult.

        Args:
            members: They.
            args: Come before the arguments of each.
            kwargs: Win over those of each.
            add_to_parent: Note the result as that of a child of the running task.
        """
        if self._group.immutable:
            args, kwargs = None, None
        results = self._app.send_all(self._sending(members, tuple(args or ()), kwargs or {}))
        if len(results) == 1 and hasattr(results[0], "results"):
            result = results[0]  # a chain that ends in a group: its group is the one to wait for
        else:
            result = self._app.GroupResult(self._id, results)
        if add_to_parent:
            self._app.add_trail(result)
        return result

    def _sending(
        self, members: Iterable[Placed], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Iterator[Any]:
        shared = self._shared
        told = {key: value for key, value in {**self._place, **shared}.items() if value is not None}
        for member, id, index, is_copy, _ in members:
            if is_copy:
                yield member.apply_async(args, kwargs, add_to_parent=False, **shared)
                continue
            task = member._type
            if "reply_to" not in told:
                told["reply_to"] = task.app.reply_address() or ""
            own_args, own_kwargs = member["args"], member["kwargs"]
            if member["immutable"]:
                own_kwargs = {**own_kwargs}
            else:
                own_args, own_kwargs = (*args, *own_args), {**own_kwargs, **kwargs}
            yield task.apply_async(
                own_args, own_kwargs, task_id=id, group_index=index, add_to_parent=False, **told
            )


def app_of(owner: Signature, members: Iterable[Any]) -> Any:
    """Return the app of a composite: its own, or the first that a member has."""
    if owner._app is not None:
        return owner._app
    for member in members:
        app = member.app
        if app is not None:
            owner._app = app
            return app
    return Signature.default_sender() if Signature.default_sender is not None else None


def adopted(member: Any, owner: Signature) -> Any:
    """Return a member of a composite, which gets its owner's app when it has none of its own."""
    if member._app is None and member._type is None:
        member._app = owner.app
    return member
