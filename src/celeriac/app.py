"""The app: tasks, settings, and the way to broker and results, in one object."""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from celeriac import context, ids
from celeriac.clock import LamportClock
from celeriac.component import Component
from celeriac.connected import Connected
from celeriac.discovery import discover
from celeriac.hooks import Signal
from celeriac.lending import Lending
from celeriac.registry import Registry
from celeriac.settings.load import import_by_name
from celeriac.task import Task as BaseTask

_alive: weakref.WeakSet[Celeriac] = weakref.WeakSet()


def _tell_of_fork() -> None:
    for app in list(_alive):
        app.on_after_fork.send(sender=app)


os.register_at_fork(after_in_child=_tell_of_fork)


class Celeriac(Lending, Connected):
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
    on_worker: ClassVar[list[Callable[[Any], Any]]] = []  # called with every worker; see `node.companion`
    builtin_fixups: Iterable[str] = frozenset()
    amqp_cls: type[Any] | str | None = None
    control_cls: type[Any] | str | None = "celeriac.remote.control:Control"
    events_cls: type[Any] | str | None = "celeriac.events.events:Events"
    loader_cls: type[Any] | str | None = None
    log_cls: type[Any] | str | None = None
    panel_cls: type[Any] | str | None = "celeriac.control.panel:Panel"
    schedules_cls: type[Any] | str | None = "celeriac.remote.schedules:Schedules"

    amqp: Any = Component("amqp")  # Any: classes of other distributions
    control: Any = Component("control")
    events: Any = Component("events")
    loader: Any = Component("loader")
    log: Any = Component("log")
    panel: Any = Component("panel")  # the commands of remote control that workers of this app know
    schedules: Any = Component("schedules")  # changes periodic tasks while schedulers run

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
        includes = [include] if isinstance(include, str) else include
        given_settings = {"result_backend": backend, "broker_url": broker, "include": includes}
        # `name` is no setting, but many a program calls the first argument so.
        self.main: str | None = main or settings.pop("name", None) or type(self).main
        super().__init__(
            {
                **{key: value for key, value in given_settings.items() if value is not None},
                **settings,
                **(changes or {}),
            },
            config_source,
            namespace,
        )
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.strict_typing = strict_typing
        self.steps: defaultdict[str, set[Any]] = defaultdict(set)
        self.user_options: defaultdict[str, set[Any]] = defaultdict(set)
        self.clock: LamportClock = LamportClock()
        self.on_after_fork: Signal = Signal(name="app.on_after_fork")
        if tasks is not None:
            self._tasks = tasks if isinstance(tasks, Registry) else Registry(tasks)
        self._components: dict[str, Any] = {}
        for name, given in (
            ("amqp", amqp), ("control", control), ("events", events), ("loader", loader), ("log", log)
        ):  # fmt: skip
            if given is not None:
                setattr(self, f"{name}_cls", given)
        if task_cls is not None:
            self.task_cls = task_cls
        _alive.add(self)
        self.fixups: list[str] = list(type(self).builtin_fixups if fixups is None else fixups)
        for announce in Celeriac.on_create:
            announce(self)
        self._fixups = [import_by_name(fixup)(self) for fixup in self.fixups]
        self.on_init()

    def on_init(self) -> None:
        """Run at the end of the constructor, for subclasses."""

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
        importlib.import_module("celeriac.security").setup(
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

    @property
    def oid(self) -> str:
        """An id of this app in this process."""
        return ids.oid(id(self))

    @property
    def thread_oid(self) -> str:
        """An id of this app in this thread."""
        return ids.oid(threading.get_ident(), id(self))

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

    def bugreport(self) -> str:
        """Return the versions, addresses and settings that help to understand a problem, secrets hidden."""
        text: str = importlib.import_module("celeriac.bugreport").describe(self)
        return text

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

    # --- life -----------------------------------------------------------------------------------------

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
