"""The app: tasks, settings, and the way to broker and results, in one object."""

from __future__ import annotations

import datetime
import importlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, Self, TypeVar, cast, overload

from celeriac import context, result
from celeriac.annotation import Annotations, prepare
from celeriac.canvas.signature import Signature, signature
from celeriac.client import Client, TaskCall
from celeriac.codecs.registry import Codecs
from celeriac.component import Component
from celeriac.configured import Configured
from celeriac.declaration import task_class
from celeriac.discovery import discover
from celeriac.errors import AlwaysEagerIgnored
from celeriac.hooks import Hooks, Signal
from celeriac.ids import IdSource
from celeriac.ports import ResultBackend, Transport
from celeriac.registry import Registry
from celeriac.retry import add_autoretry
from celeriac.routing import Router
from celeriac.settings.load import import_by_name
from celeriac.standard_tasks import add_standard_tasks
from celeriac.task import Task as BaseTask

P = ParamSpec("P")
R = TypeVar("R")

_UTC = datetime.UTC


_IDS = IdSource()
_alive: weakref.WeakSet[Celeriac] = weakref.WeakSet()


def _tell_of_fork() -> None:
    for app in list(_alive):
        app.on_after_fork.send(sender=app)


os.register_at_fork(after_in_child=_tell_of_fork)


class Celeriac(Configured):
    """A task queue of one project: its tasks, its settings, and the way to its broker and results.

    Nothing is read, imported or connected before it is needed: the settings at the first look at one of
    them, the broker with the first task sent.

    Args:
        main: The project's name; it stands for ``__main__`` in the names of tasks.
        loader: Class, or dotted name, of what reads settings and modules; only some distributions have one.
        backend: Where results are kept: the setting ``result_backend``.
        amqp: As loader.
        events: As loader.
        log: As loader.
        control: As loader.
        set_as_current: Make it the app that is found by those who were given none.
        tasks: Tasks to begin with.
        broker: The broker's URL: the setting ``broker_url``. With none, tasks are queued in a file.
        include: Modules that a worker imports.
        changes: Settings that win over all others.
        config_source: Where the other settings come from: see `config_from_object`.
        fixups: Dotted names of functions that fit the app into a framework; None: the built-in ones.
        task_cls: The class of tasks, or its dotted name.
        autofinalize: Finalize at the first use; False makes using it before `finalize` an error.
        namespace: Prefix of the settings' names in the source.
        strict_typing: Check the arguments of tasks when they are sent.
        **settings: More settings.
    """

    on_create: ClassVar[list[Callable[[Celeriac], None]]] = []  # called with every new app
    on_shared: ClassVar[list[Callable[[Celeriac, Callable[..., Any], dict[str, Any]], None]]] = []
    on_finalize: ClassVar[list[Callable[[Celeriac], None]]] = []  # add tasks to every app that is finalized

    main: str | None = None
    task_cls: type[BaseTask[Any, Any]] | str = BaseTask
    builtin_fixups: Iterable[str] = frozenset()
    amqp_cls: type[Any] | str | None = None
    control_cls: type[Any] | str | None = None
    events_cls: type[Any] | str | None = None
    loader_cls: type[Any] | str | None = None
    log_cls: type[Any] | str | None = None

    amqp: Any = Component("amqp")  # Any: classes of other distributions
    control: Any = Component("control")
    events: Any = Component("events")
    loader: Any = Component("loader")
    log: Any = Component("log")

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: str | None = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Mapping[str, Any] | None = None,
        broker: str | None = None,
        include: Sequence[str] | str | None = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Iterable[str] | None = None,
        task_cls: type[BaseTask[Any, Any]] | str | None = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        **settings: Any,
    ) -> None:
        # `name` is no setting, but many a program calls the first argument so.
        self.main = main or settings.pop("name", None) or type(self).main
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.finalized = False
        self.steps: dict[str, set[Any]] = {"worker": set(), "consumer": set()}
        self.user_options: dict[str, set[Any]] = {
            "preload": set(),
            "worker": set(),
            "beat": set(),
            "events": set(),
        }
        self.hooks = Hooks()
        self.codecs = Codecs()
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")
        self.new_id = _IDS.next
        self._lock = threading.RLock()
        self._components: dict[str, Any] = {}
        self._tasks = tasks if isinstance(tasks, Registry) else Registry(tasks or {})
        self._client: Client | None = None
        self._transport: Transport | None = None
        self._backend: ResultBackend | None = None
        self._backend_known = False
        self._reply_address: Callable[[], str | None] | None = None
        self._router: Router | None = None
        self._annotations: tuple[Annotations, ...] | None = None
        for name, given in (
            ("amqp", amqp), ("control", control), ("events", events), ("loader", loader), ("log", log)
        ):  # fmt: skip
            if given is not None:
                setattr(self, f"{name}_cls", given)
        if task_cls is not None:
            self.task_cls = task_cls
        includes = [include] if isinstance(include, str) else include
        given_settings = {"result_backend": backend, "broker_url": broker, "include": includes}
        super().__init__(
            {
                **{key: value for key, value in given_settings.items() if value is not None},
                **settings,
                **(changes or {}),
            },
            config_source,
            namespace,
        )
        _alive.add(self)
        self.fixups = list(type(self).builtin_fixups if fixups is None else fixups)
        for announce in Celeriac.on_create:
            announce(self)
        self._fixups = [import_by_name(fixup)(self) for fixup in self.fixups]
        self.on_init()

    def on_init(self) -> None:
        """Run at the end of the constructor, for subclasses."""

    def _settings_replaced(self) -> None:
        self._client = self._router = None

    # --- tasks ----------------------------------------------------------------------------------------

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
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...

    @overload
    def task(
        self, *, bind: Literal[True], **opts: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], BaseTask[P, R]]: ...

    @overload
    def task(
        self, *, bind: Literal[False] = ..., **opts: Any
    ) -> Callable[[Callable[P, R]], BaseTask[P, R]]: ...

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
                for announce in Celeriac.on_shared:
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
            for add_tasks in Celeriac.on_finalize:
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

    def setup_security(
        self,
        allowed_serializers: Iterable[str] | None = None,
        key: str | None = None,
        key_password: bytes | str | None = None,
        cert: str | None = None,
        store: str | None = None,
        digest: str | None = None,
        serializer: str = "json",
    ) -> None:
        """Sign what is sent and refuse what is not signed by somebody known; see `celeriac.security.setup`.

        Args:
            allowed_serializers: Accepted for Celery's sake: nothing but signed messages is accepted.
            key: File of the private key; ``security_key`` when not given.
            key_password: Opens the key when it is encrypted.
            cert: File of the certificate; ``security_certificate`` when not given.
            store: Pattern of the files with welcome certificates; ``security_cert_store`` when not given.
            digest: Hash of the signature; ``security_digest`` when not given.
            serializer: What bodies are encoded with before they are signed.

        Raises:
            ConfigError: The settings do not ask for signed messages alone, or a file is missing.
            SecurityError: A key or certificate cannot be used.
        """
        _late("security").setup(
            self._conf,
            self.codecs,
            now=self.now(),
            key=key,
            key_password=key_password,
            cert=cert,
            store=store,
            digest=digest,
            serializer=serializer,
        )

    @property
    def current_task(self) -> Any:  # Any: a task, or None
        """The innermost task that runs here, a plain call of one included."""
        frame = context.current()
        return None if frame is None else frame.task

    @property
    def current_worker_task(self) -> Any:  # Any: a task, or None
        """The innermost task that runs here for a message, or eagerly."""
        frame = context.worker_frame()
        return None if frame is None else frame.task

    # --- modules --------------------------------------------------------------------------------------

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Have a worker import the ``tasks`` module of each package that has one.

        Args:
            packages: Their names, or a function that returns them; None: those that the fixups know.
            related_name: The module's name; None imports the packages themselves.
            force: Import now.
        """

        def run(**_: Any) -> None:
            names = packages() if callable(packages) else packages
            if names is None:
                names = [name for fixup in self._fixups for name in _packages_of(fixup)]
            for name in names:
                discover(name, related_name)

        if force:
            run()
        else:
            self.hooks.import_modules.connect(run, sender=self, weak=False)

    def import_modules(self) -> list[Any]:
        """Import the modules to be discovered and those of ``imports`` and ``include``; return the latter.

        Raises:
            ImportError: One of them cannot be imported.
        """
        # The hook comes first: a framework has to be set up before modules with tasks can be imported.
        for _, response in self.hooks.import_modules.send(sender=self):
            if isinstance(response, Exception):
                raise response
        return [import_by_name(name) for name in _unique(self._conf.imports, self._conf.include)]

    # --- sending --------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        **options: Any,
    ) -> Any:  # Any: AsyncResult, or what `result_cls` makes
        """Send a call by the task's name, which need not be known here.

        Args:
            name: The task's name.
            args: Positional arguments.
            kwargs: Keyword arguments.
            countdown: Seconds before which it shall not run.
            eta: Moment before which it shall not run.
            task_id: Its id.
            producer: A `celeriac.ports.Producer` to send with.
            **options: As for `Task.apply_async`.
        """
        if self._conf.task_always_eager:
            warnings.warn(
                "task_always_eager has no effect on send_task: the task is sent.",
                AlwaysEagerIgnored,
                stacklevel=2,
            )
        if countdown is not None:
            options["countdown"] = countdown
        if eta is not None:
            options["eta"] = eta
        if task_id is not None:
            options["task_id"] = task_id
        if producer is not None:
            options["producer"] = producer
        sequence = args if args is None or isinstance(args, (list, tuple)) else tuple(args)
        return self.client.send(name, sequence, kwargs, options)

    def send_many(self, calls: Sequence[TaskCall]) -> list[Any]:
        """Send several calls in one round trip and return their results."""
        return self.client.send_many(calls)

    def signature(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a signature that this app sends."""
        kwargs["app"] = self
        return signature(*args, **kwargs)

    @property
    def client(self) -> Client:
        """Sends calls to the broker."""
        if self._client is None:
            if not self.finalized:
                self.finalize(auto=True)
            with self._lock:
                if self._client is None:
                    self._client = Client(self)
        return self._client

    @property
    def router(self) -> Router:
        """Says which queue a call goes to."""
        if self._router is None:
            self._router = Router(self._conf)
        return self._router

    def select_queues(self, queues: str | Iterable[str] | None = None) -> None:
        """Have workers consume from these queues only."""
        self.router.select(queues or [])

    @property
    def transport(self) -> Transport:
        """The broker to send to."""
        if self._transport is None:
            with self._lock:
                if self._transport is None:
                    self._transport = _late("connections").connect_broker(self._conf, app_name=self.main)
        return self._transport

    @property
    def backend(self) -> ResultBackend | None:
        """Where results are kept; None when they are not."""
        if not self._backend_known:
            with self._lock:
                if not self._backend_known:
                    self._backend = _late("connections").connect_backend(
                        self._conf, self.codecs, self.transport, app_name=self.main
                    )
                    self._backend_known = True
        return self._backend

    @backend.setter
    def backend(self, backend: ResultBackend | None) -> None:
        self._backend, self._backend_known = backend, True
        self._reply_address = None

    def reply_address(self) -> str | None:
        """Return where results shall be sent to; None when they are kept at the backend."""
        if self._reply_address is None:
            backend = self.backend
            self._reply_address = _nowhere if backend is None else backend.reply_address
        return self._reply_address()

    def batch(self) -> AbstractContextManager[None]:
        """Return a block that sends in one round trip what is sent inside it."""
        return self.client.batch()

    def add_trail(self, sent: Any) -> None:
        """Note a result as that of a child of the task that is running here, if there is one."""
        frame = context.worker_frame()
        if frame is not None:
            frame.task.add_trail(sent)

    def allow_join(self) -> AbstractContextManager[None]:
        """Return a block in which tasks may wait for results."""
        return context.allow_join_result()

    def start_chord(self, group_id: str, size: int, members: Any) -> None:
        """Prepare the result backend for a chord, before its header is sent.

        Args:
            group_id: The id of the header.
            size: How many parts there will be.
            members: The result of the header, as nested tuples.

        Raises:
            NotImplementedError: There is no result backend, or it cannot count the parts.
        """
        backend = self.backend
        if backend is None:
            raise NotImplementedError(
                "Starting chords requires a result backend to be configured: its body runs when the last "
                "result of its header has come in. Set result_backend."
            )
        backend.start_chord(group_id, size, members)

    # --- results --------------------------------------------------------------------------------------

    @property
    def AsyncResult(self) -> type[result.AsyncResult[Any]]:  # noqa: N802 - a class
        """The class of results of one task."""
        made: type[result.AsyncResult[Any]] = self.__dict__.get("_AsyncResult") or self._bound(
            result.AsyncResult
        )
        return made

    @property
    def ResultSet(self) -> type[result.ResultSet]:  # noqa: N802 - a class
        """The class of several results."""
        return cast("type[result.ResultSet]", self._bound(result.ResultSet))

    @property
    def GroupResult(self) -> type[result.GroupResult]:  # noqa: N802 - a class
        """The class of the results of a group."""
        return cast("type[result.GroupResult]", self._bound(result.GroupResult))

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

    def _bound(self, base: type[Any]) -> Any:
        name = f"_{base.__name__}"
        if name not in self.__dict__:
            self.__dict__[name] = self.subclass_with_self(base)
        return self.__dict__[name]

    # --- life -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections of this process. Using the app afterwards opens new ones."""
        with self._lock:
            client, self._client = self._client, None
            backend, self._backend, self._backend_known = self._backend, None, False
            transport, self._transport = self._transport, None
            self._reply_address = None
        for part in (client, backend, transport):
            if part is not None:
                part.close()

    def __enter__(self) -> Self:
        """Return the app."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def start(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line with this app and return its exit code."""
        return cast("int", importlib.import_module("celeriac.cli.main").run(argv, app=self))

    def worker_main(self, argv: Sequence[str] | None = None) -> int:
        """Run the ``worker`` command with this app and return its exit code.

        Raises:
            ValueError: The arguments name no ``worker`` command.
        """
        if argv is not None and "worker" not in argv:
            raise ValueError("The worker sub-command must be specified in argv, as in app.start(['worker']).")
        return self.start(argv)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings that were given; tasks are declared again by their modules."""
        keys = {
            "main": self.main,
            "changes": dict(self._conf.changes),
            "config_source": self._config_source,
            "fixups": self.fixups,
            "namespace": self.namespace,
            "set_as_current": False,
        }
        return _unpickle, (type(self), keys)

    def __repr__(self) -> str:
        """Name the app."""
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"


def _late(name: str) -> Any:  # Any: a module
    """Return a module of this floor that many an app never needs, or not before it sends."""
    return importlib.import_module(f"celeriac.{name}")


def _nowhere() -> None:
    return None


def _packages_of(fixup: Any) -> Iterable[str]:
    find = getattr(fixup, "autodiscover_tasks", None)
    return cast("Iterable[str]", find()) if find is not None else ()


def _unique(*lists: Any) -> list[str]:
    names: dict[str, None] = {}
    for values in lists:
        for name in [values] if isinstance(values, str) else values or ():
            names.setdefault(name)
    return list(names)


def _unpickle(cls: type[Celeriac], keys: dict[str, Any]) -> Celeriac:
    return cls(**keys)
