"""A call as a value: what to call with which arguments and options, to be sent later or elsewhere."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from celeriac.canvas import stamps
from celeriac.canvas.stamps import StampingVisitor
from celeriac.errors import NotRegistered
from celeriac.limits import check_time_limits

# Options that stay as they were when a signature was made: callers cannot override them.
_FIXED_OPTIONS = frozenset({"group_id", "stamped_headers"})

SignatureClass = TypeVar("SignatureClass", bound="type[Signature]")


class _Owned(dict[str, Any]):  # Any: the user's arguments and options
    """A dict that knows whose it is, in slots: the ``__dict__`` of an instance would take 300 bytes."""

    __slots__ = ("_app", "_type")

    _app: Any  # a `Sender`, which an app is
    _type: Any  # a task, three floors up


class Signature(_Owned):
    """One call of a task, not sent yet.

    It is a dict of ``task``, ``args``, ``kwargs``, ``options``, ``subtask_type`` and ``immutable``, so that
    every serializer can carry it.

    Args:
        task: The task, its name, or the dict form of a signature.
        args: Positional arguments; those given when it is applied come before them.
        kwargs: Keyword arguments; those given when it is applied win.
        options: Options of ``apply_async``.
        type: The task itself, when ``task`` is its name.
        subtask_type: Which composite it is; None for a plain call.
        immutable: Ignore the arguments given when it is applied.
        app: The app that sends it.
        **ex: More options.
    """

    TYPES: ClassVar[dict[str, type[Signature]]] = {}  # the composites by ``subtask_type``
    default_sender: ClassVar[Callable[[], Any] | None] = None  # asked when a signature has no app

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        self._type = None
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = task if isinstance(task, str) or task is None else task.name
        self._type = type if type is not None or isinstance(task, str) else task
        super().__init__(
            task=name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **ex},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # --- the fields -----------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The task's name."""
        return cast("str", self["task"])

    @task.setter
    def task(self, name: str) -> None:
        self["task"] = name

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self["args"]

    @args.setter
    def args(self, args: Sequence[Any]) -> None:
        self["args"] = args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return cast("dict[str, Any]", self["kwargs"])

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self["kwargs"] = kwargs

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``apply_async``."""
        return cast("dict[str, Any]", self["options"])

    @options.setter
    def options(self, options: dict[str, Any]) -> None:
        self["options"] = options

    @property
    def subtask_type(self) -> str | None:
        """Which composite it is; None for a plain call."""
        return cast("str | None", self.get("subtask_type"))

    @property
    def immutable(self) -> bool:
        """Whether arguments given when it is applied are ignored."""
        return bool(self.get("immutable"))

    @immutable.setter
    def immutable(self, immutable: bool) -> None:
        self["immutable"] = immutable

    @property
    def id(self) -> str | None:
        """The id that its task will have, once it was frozen."""
        return cast("str | None", self.options.get("task_id"))

    @property
    def parent_id(self) -> str | None:
        """The id of the task that sends it."""
        return cast("str | None", self.options.get("parent_id"))

    @property
    def root_id(self) -> str | None:
        """The id of the first task of its workflow."""
        return cast("str | None", self.options.get("root_id"))

    @property
    def group_id(self) -> str | None:
        """The id of the group that its end belongs to, once it was frozen."""
        return cast("str | None", self.options.get("group_id"))

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def app(self) -> Any:
        """The app that sends it."""
        if self._app is None:
            if self._type is not None:
                return self._type.app
            if Signature.default_sender is not None:
                return Signature.default_sender()
        return self._app

    @property
    def type(self) -> Any:
        """The task.

        Raises:
            NotRegistered: No task of that name is registered in the app.
        """
        return self._type if self._type is not None else self.app.tasks[self.task]

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - a class
        """The class of its result."""
        try:
            return self.type.AsyncResult
        except NotRegistered:
            return self.app.AsyncResult

    @property
    def ends_in_group(self) -> bool:
        """Whether its result is that of several calls."""
        return False

    def as_part(self) -> Signature:
        """Return what stands for it inside a workflow: something that has results to wait for."""
        return self

    @property
    def parts(self) -> int:
        """How many tasks have to end before it has, as a member of a chord's header."""
        return 1

    # --- sending --------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task right here, as a function."""
        merged_args, merged_kwargs, _ = self.merge(args, kwargs)
        return self.type(*merged_args, **merged_kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it, with these arguments before its own."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Send it, with these arguments before its own and these options over its own; return the result."""
        args, kwargs, options = self.merge(args, kwargs, options)
        if route_name is not None:
            options["route_name"] = route_name
        try:
            task = self.type
        except NotRegistered:
            return self.app.send_task(self.task, args, kwargs, **options)
        return task.apply_async(args, kwargs, **options)

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run it right here, as a worker would, and return an EagerResult."""
        args, kwargs, options = self.merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def __invert__(self) -> Any:
        """Send it and wait for the result: ``~add.s(1, 2)``."""
        return self.apply_async().get()

    # --- changing and copying -------------------------------------------------------------------------

    def merge(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Return arguments, keyword arguments and options of applying it with these.

        Args:
            args: Come before its own.
            kwargs: Win over its own.
            options: Win over its own, except None values, the group, and stamps that it has already.
            force: Take the arguments although it is immutable.
        """
        merged = dict(self.options)
        if options:
            fixed = _FIXED_OPTIONS.union(merged.get("stamped_headers") or ())
            merged.update(
                {k: v for k, v in options.items() if v is not None and (k not in fixed or k not in merged)}
            )
        if self.immutable and not force:
            return tuple(self.args), dict(self.kwargs), merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return a copy, with these arguments before its own and these options over its own."""
        if args or kwargs or options:
            merged = self.merge(args, kwargs, options)
        else:
            merged = tuple(self.args), dict(self.kwargs), dict(self.options)
        return self._copy_with(*merged)

    partial = clone

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return a copy in which what is given stands in place of its own."""
        return self._copy_with(
            tuple(self.args if args is None else args),
            dict(self.kwargs if kwargs is None else kwargs),
            dict(self.options if options is None else options),
        )

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options in place and return itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Have arguments ignored that are given when it is applied."""
        self.immutable = immutable

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give it its id, if it has none, and its place in a workflow; return the result to come.

        Args:
            _id: The id.
            group_id: The group that it belongs to.
            chord: The body of the chord that it belongs to.
            root_id: The first task of the workflow.
            parent_id: The task that sends it.
            group_index: Its place in the group.

        Raises:
            ValueError: Its soft time limit is above the hard one.
        """
        options = self.options
        if "time_limit" in options or "soft_time_limit" in options:
            self._check_time_limits()
        id = options.get("task_id") or _id or self.app.new_id()
        options["task_id"] = id
        for name, value in (
            ("root_id", root_id),
            ("parent_id", parent_id),
            ("group_id", group_id),
            ("chord", chord),
            ("group_index", group_index),
        ):
            if value is not None:
                options[name] = value
        if "reply_to" not in options:
            options["reply_to"] = self.app.reply_address() or ""
        return self.AsyncResult(id)

    _freeze = freeze

    def _check_time_limits(self) -> None:
        """Raise what its call would raise before anything of the workflow runs, not when its turn comes."""
        try:
            own = self.type._get_exec_options()
        except NotRegistered:
            own = {}
        options = {**own, **self.options}
        check_time_limits(options.get("soft_time_limit"), options.get("time_limit"))

    # --- what follows it ------------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Have a signature applied with the result when it has succeeded; return that signature."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have a signature applied when it has failed; return that signature."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """Do as `link_error`, but return itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add a value to a list among the options, unless it is there, and return the value."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add values to a list among the options."""
        self._list_option(key).extend(listed(value))

    def flatten_links(self) -> list[Any]:
        """Return it and everything that is linked to it, and to that."""
        found: list[Any] = [self]
        for link in listed(self.options.get("link")):
            found.extend(maybe_signature(link, app=self._app).flatten_links())
        return found

    # --- stamps ---------------------------------------------------------------------------------------

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> Any:
        """Stamp it, and what is linked to it, in place.

        Args:
            visitor: Says what to stamp with.
            append_stamps: Collect the values of a stamp in a list; otherwise the newest one stands.
            **headers: Stamps by name.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        seen = visitor.on_signature(self, **headers) if visitor is not None else None
        return self.set(**self._stamp_headers(seen, append_stamps, **headers))

    def stamp_links(
        self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any
    ) -> None:
        """Stamp what is linked to it."""
        for key in ("link", "link_error"):
            links = self._list_option(key) if self.options.get(key) else []
            for position, linked in enumerate(links):
                link = links[position] = maybe_signature(linked, app=self._app)
                more: Any = None
                if visitor is not None:
                    see = visitor.on_callback if key == "link" else visitor.on_errback
                    more = see(link, **headers)
                stamped = self._stamp_headers(more, append_stamps, self_headers=False, **headers)
                link.stamp(visitor, append_stamps, **stamped)

    def _stamp_headers(
        self,
        visitor_headers: Mapping[str, Any] | None = None,
        append_stamps: bool = False,
        self_headers: bool = True,
        **headers: Any,
    ) -> dict[str, Any]:
        """Return the stamps given, those of a visitor and its own as one."""
        own = stamps.of_options(self.options) if self_headers else None
        return stamps.merge([headers, visitor_headers, own], append=append_stamps)

    def __or__(self, other: Any) -> Any:
        """Return the workflow of this, then the other."""
        if not isinstance(other, Signature):
            return NotImplemented
        # Who follows whom needs all the composites, and each of them needs this module.
        return importlib.import_module("celeriac.canvas.joining").join(self, other)

    if TYPE_CHECKING:  # or checkers take that of dict, for `signature | group`

        def __ror__(self, other: Any) -> Any: ...

    def __ior__(self, other: Any) -> Any:
        """Return the workflow of this, then the other."""
        return self.__or__(other)

    # --- as a value -----------------------------------------------------------------------------------

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return how the call would be written."""
        merged_args, merged_kwargs, _ = self.merge(args, kwargs, force=True)
        parts = [*map(repr, merged_args), *(f"{k}={v!r}" for k, v in merged_kwargs.items())]
        return f"{self.task}({', '.join(parts)})"

    def __repr__(self) -> str:
        """Show the call as it would be written."""
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        """Return the plain dict, for serializers that ask for it."""
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return a plain dict, as its dict form travels."""
        memo[id(self)] = self
        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the dict form."""
        return signature, (dict(self),)

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[SignatureClass], SignatureClass]:
        """Return a decorator that makes a class the form of signatures of that ``subtask_type``."""

        def register(subclass: SignatureClass) -> SignatureClass:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """Return the signature of a dict form, in the class of its ``subtask_type``.

        Raises:
            KeyError: There is no such ``subtask_type``.
        """
        kind = d.get("subtask_type")
        if kind:
            if kind not in cls.TYPES:
                importlib.import_module("celeriac.canvas")  # which registers the built-in ones
            target = cls.TYPES[kind]
            if target is not cls:
                return target.from_dict(d, app=app)
        return Signature(d, app=app)

    def election(self) -> Any:
        """Send it to the one worker that the workers elect."""
        frozen = self.freeze()
        self.app.control.election(frozen.id, "task", self.clone(task_id=frozen.id))
        return frozen

    def _copy_with(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Self:
        plain = {
            **self,
            "args": args,
            "kwargs": kwargs,
            "options": copy.deepcopy(options) if options else {},
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }
        made = Signature.from_dict(plain, app=self._app)
        made._type = self._type
        return cast("Self", made)

    def _list_option(self, key: str) -> list[Any]:
        items = self.options.get(key)
        if not isinstance(items, list):
            items = listed(items)
            self.options[key] = items
        return items


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """Return a signature of a task, a name, a dict form (in its own class) or another signature (a copy)."""
    app = kwargs.get("app")
    if isinstance(varies, dict):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=app)
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Return a signature of a dict form and of a signature (a copy with ``clone``), else what was given."""
    if not isinstance(d, dict):
        return d
    if isinstance(d, Signature):
        made = d.clone() if clone else d
    else:
        made = Signature.from_dict(d)
    if app is not None:
        made._app = app
    return made


maybe_subtask = maybe_signature


def part(d: Any) -> Any:
    """Return what stands for a signature or a dict form inside a workflow, and anything else as it is."""
    made = maybe_signature(d)
    return made.as_part() if isinstance(made, Signature) else made


def listed(value: Any) -> list[Any]:
    """Return an option that is a list, or one of its items, as a new list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
