"""The part of an app that has its tasks: how they are declared, named, found and made ready."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, TypeVar, cast, overload

from celeriac import limits, uniqueness
from celeriac.annotation import Annotations, prepare
from celeriac.configured import Configured
from celeriac.declaration import BoundTaskDecorator, TaskDecorator, task_class
from celeriac.forklock import ForkLock
from celeriac.hooks import Signal
from celeriac.keypath import KeyPath
from celeriac.registry import Registry
from celeriac.retry import add_autoretry
from celeriac.rounds import FAIR_KEY_HEADER
from celeriac.settings.load import import_by_name
from celeriac.standard_tasks import add_standard_tasks
from celeriac.task import Task as BaseTask
from celeriac.uniqueness import Uniqueness
from celeriac.wire.task import LIMIT_KEY_HEADER

if TYPE_CHECKING:
    from celeriac.declaration import CoroutineTask

P = ParamSpec("P")
R = TypeVar("R")


class Tasked(Configured):
    """Something with tasks, which take from its settings what they leave open.

    Args:
        changes: See `Configured`.
        source: See `Configured`.
        namespace: See `Configured`.
    """

    # Any: a Celeriac, whose module imports this one
    on_shared: ClassVar[list[Callable[[Any, Callable[..., Any], dict[str, Any]], None]]] = []
    on_finalize: ClassVar[list[Callable[[Any], None]]] = []  # add tasks to every app that is finalized

    main: str | None = None
    task_cls: type[BaseTask[Any, Any]] | str = BaseTask
    autofinalize: bool = True
    strict_typing: bool = True

    def __init__(self, changes: Mapping[str, Any], source: Any, namespace: str | None) -> None:
        super().__init__(changes, source, namespace)
        self.finalized: bool = False
        self.on_after_finalize: Signal = Signal(name="app.on_after_finalize")
        self._lock = ForkLock()
        self._tasks = Registry()
        self.key_paths: dict[str, dict[str, KeyPath]] = {}  # by task, what each header of its calls tells
        self.uniques: dict[str, Uniqueness] = {}  # by task, which of its calls are the same
        self._annotations: tuple[Annotations, ...] | None = None

    @property
    def tasks(self) -> Registry:
        """The tasks by name; looking at them finalizes the app."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    @property
    def Task(self) -> type[BaseTask[Any, Any]]:  # noqa: N802 - a class
        """The base class of this app's tasks."""
        made = self.__dict__.get("_Task")
        if made is None:
            made = self.__dict__["_Task"] = self.create_task_cls()
        return cast("type[BaseTask[Any, Any]]", made)

    @Task.setter
    def Task(self, base: type[Any]) -> None:  # noqa: N802 - a class
        self.__dict__["_Task"] = base

    def create_task_cls(self) -> type[Any]:
        """Return the base class of this app's tasks; a subclass may make another one."""
        return cast(
            "type[Any]", self.subclass_with_self(self.task_cls, name="Task", attribute="_app", abstract=True)
        )

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...

    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...

    @overload
    def task(self, *, bind: Literal[True], **opts: Any) -> BoundTaskDecorator: ...

    @overload
    def task(self, *, bind: Literal[False] = ..., **opts: Any) -> TaskDecorator: ...

    def task(self, *args: Any, **opts: Any) -> Any:
        """Make a task of a function; a decorator with and without arguments.

        Args:
            *args: The function, when used without arguments.
            **opts: ``name``, ``base`` (its class), ``bind`` (the task comes first among the arguments),
                ``pydantic`` and its like, ``filter`` (called with the task; what it returns is returned);
                any other becomes an attribute of the task (see `celeriac.task.Task`).

        Raises:
            TypeError: The only positional argument is no function, or there are several.
        """

        def decorate(fun: Callable[..., Any]) -> Any:
            options = dict(opts)
            shared = options.pop("shared", True)
            after = options.pop("filter", None)
            options.pop("lazy", None)
            made = self.declare(fun, **options)
            if shared:
                for announce in self.on_shared:
                    announce(self, fun, options)
            return made if after is None else after(made)

        if len(args) == 1:
            if not callable(args[0]):
                raise TypeError("argument 1 to @task() must be a callable")
            return decorate(args[0])
        if args:
            raise TypeError(f"@task() takes exactly 1 argument ({sum((len(args), len(opts)))} given)")
        return decorate

    def register_task(self, task: Any, **options: Any) -> Any:  # Any: a task or its class
        """Add a task that was made from a class, and return it."""
        if not self.finalized and not self.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        task = task() if isinstance(task, type) else task
        if not task.name:
            task.name = self.gen_task_name(type(task).__name__, type(task).__module__)
        return self._adopt(task, options)

    def gen_task_name(self, name: str, module: str) -> str:
        """Return the name of a task that is declared without one: ``module.name``."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def finalize(self, auto: bool = False) -> None:
        """Make the app ready for use: add the tasks that every app has, and bind all to the settings.

        Args:
            auto: It happens by itself, at the first use.

        Raises:
            RuntimeError: It happens by itself and ``autofinalize`` is off.
        """
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            self.finalized = True
            add_standard_tasks(self)
            for add_tasks in self.on_finalize:
                add_tasks(self)
            for task in list(self._tasks.values()):
                task.bind(self)
            self.on_after_finalize.send(sender=self)

    def declare(
        self,
        fun: Callable[..., Any],
        name: str | None = None,
        base: type[Any] | None = None,
        bind: bool = False,
        **options: Any,
    ) -> Any:  # Any: a task; of another kind than asked for when the name is taken
        """Make a task of a function and add it; the plain form of the decorator `task`.

        Declaring a name again returns the task that has it.
        """
        if not self.finalized and not self.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        name = name or self.gen_task_name(getattr(fun, "__name__", type(fun).__name__), fun.__module__)
        if name in self._tasks:
            return self._tasks[name]
        made = task_class(self, fun, name, base or self.Task, bind=bind, options=options)()
        return self._adopt(made, options)

    def _adopt(self, task: Any, options: Mapping[str, Any]) -> Any:
        if task._app is None or task._app is not self:
            task._app = self
        limits.check(task)
        paths = {
            header: KeyPath(path, task.name, task.run, option)
            for header, option in ((LIMIT_KEY_HEADER, "per"), (FAIR_KEY_HEADER, "fair_by"))
            if (path := getattr(task, option)) is not None
        }
        if paths:
            self.key_paths[task.name] = paths
        rule = uniqueness.of_task(task)
        if rule is not None:
            self.uniques[task.name] = rule
        add_autoretry(task, dict(options))
        self._tasks[task.name] = task
        if self.finalized:
            task.bind(self)
        return task

    @property
    def annotations(self) -> tuple[Annotations, ...]:
        """The setting ``task_annotations``, ready for use."""
        if self._annotations is None:
            self._annotations = prepare(self._conf.task_annotations)
        return self._annotations

    def subclass_with_self(
        self,
        Class: Any,  # noqa: N803 - Celery's name
        name: str | None = None,
        attribute: str = "app",
        **attrs: Any,
    ) -> Any:
        """Return a subclass of a class (or dotted name) whose attribute is this app."""
        base = import_by_name(Class) if isinstance(Class, str) else Class
        members = {attribute: self, "__module__": base.__module__, "__doc__": base.__doc__, **attrs}
        return type(name or base.__name__, (base,), members)
