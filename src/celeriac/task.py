"""A task: a function that can be called elsewhere, with all that says how."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, cast

from celeriac import context, eager, patience, states
from celeriac import result as results
from celeriac.addition import place_beside
from celeriac.annotation import first_of
from celeriac.canvas import Signature, chunks, send_map, xmap, xstarmap
from celeriac.context import Context, Requests
from celeriac.errors import (
    ConfigError,
    Ignore,
    MaxRetriesExceededError,
    NotRegistered,
    Retry,
    TransportError,
)
from celeriac.limits import check_time_limits
from celeriac.message import Outcome
from celeriac.parameters import Parameters
from celeriac.ports import ResultBackend
from celeriac.progress import Progress
from celeriac.replacement import in_place_of
from celeriac.retry import call_again, send_again
from celeriac.run import ErrorInfo
from celeriac.task_hooks import TaskHooks

if TYPE_CHECKING:  # type checkers know defaults of type variables: a bare `Task` is `Task[..., Any]`
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R_co = TypeVar("R_co", covariant=True)

# Attributes that are publish options where a task has them.
EXEC_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
    "immediate",
    "mandatory",
)


class _AppOf:
    """The app of a task or task class; asked of neither before it is needed."""

    def __get__(self, task: Any, owner: Any = None) -> Any:
        holder = owner if task is None else task
        app = holder._app
        if app is None and Task.default_app is not None:
            return Task.default_app()
        return app

    def __set__(self, task: Any, app: Any) -> None:
        task._app = app


class _RequestOf:
    """The call that a task is running for."""

    def __get__(self, task: Any, owner: Any = None) -> Any:
        return self if task is None else context.request_of(task)


class Task(TaskHooks, Generic[P, R_co]):
    """A function that can be called elsewhere.

    Made by ``@app.task``, or by subclassing with a ``run`` method and ``app.register_task``. ``P`` are the
    parameters of the function, ``R_co`` is what it returns (an ``async def`` function: when awaited).
    """

    default_app: ClassVar[Callable[[], Any] | None] = None  # asked when a task has no app
    error_info: ClassVar[type[ErrorInfo]] = ErrorInfo  # the class of `einfo`
    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = TransportError

    # What `bind` takes from the settings where it is None here.
    from_config: tuple[tuple[str, str], ...] = (
        ("serializer", "task_serializer"),
        ("rate_limit", "task_default_rate_limit"),
        ("priority", "task_default_priority"),
        ("track_started", "task_track_started"),
        ("acks_late", "task_acks_late"),
        ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
        ("acks_on_failure", "task_acks_on_failure"),
        ("acks_on_timeout", "task_acks_on_timeout"),
        ("reject_on_worker_lost", "task_reject_on_worker_lost"),
        ("dead_letter", "task_dead_letter"),
        ("lock_seconds", "task_lock_seconds"),
        ("ignore_result", "task_ignore_result"),
        ("store_eager_result", "task_store_eager_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
    )

    name: str = None  # type: ignore[assignment]  # every registered task has one
    abstract: bool = True
    typing: bool | None = None  # check arguments when it is sent; None: as the app says
    max_retries: int | None = 3  # None: for ever
    default_retry_delay: float = 180  # seconds
    rate_limit: str | float | None = None
    rate_limit_scope: str = "worker"  # whether each worker counts alone, or all together: "global"
    concurrency_limit: int | None = None  # how many run at a time in all workers together
    per: str | None = None  # count for limits of all workers by an argument, such as "args.tenant_id"
    fair_by: str | None = None  # the calls of a queue take turns by an argument, such as "args.tenant_id"
    # A call like one that is not over yet is not sent, and has its result: over when it starts, when it is
    # done, or after so many seconds.
    unique: Literal["until_started", "until_done"] | float | None = None
    unique_on: Sequence[str] | None = None  # what makes calls the same, as `per`; None: all arguments
    throttle: float | None = None  # seconds; after a call others like it are not sent, and have its result
    # Seconds; of calls that follow each other within that time the last one runs, so long after it was made.
    debounce: float | None = None
    lock_seconds: float | None = None  # a call that no worker runs keeps others out for so long, at most
    ignore_result: bool | None = None
    trail: bool = True  # note the tasks that it sends as its children
    send_events: bool = True
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    serializer: str | None = None
    time_limit: float | None = None  # seconds
    soft_time_limit: float | None = None  # seconds
    track_started: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None  # for failures alone; None: as acks_on_failure_or_timeout says
    acks_on_timeout: bool | None = None  # for hard time limits alone, likewise
    reject_on_worker_lost: bool | None = None
    dead_letter: bool | None = None  # keep its message when its last retry has failed
    priority: int | None = None
    expires: Any = None  # seconds or a datetime
    throws: tuple[type[BaseException], ...] = ()  # failures that are expected
    resultrepr_maxsize: int = 1024  # characters
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: dict[str, Any] = {}  # noqa: RUF012
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600  # seconds
    retry_jitter: bool = True
    Request: Any = None
    Strategy: Any = None

    _app: Any = None
    _exec_options: dict[str, Any] | None = None
    _backend: ResultBackend | None = None
    _parameters: Parameters | None = None
    _decorated: bool = False
    __bound__: bool = False

    app: Any = _AppOf()  # Any: a Celeriac, whose module imports this one
    request: Context = cast("Context", _RequestOf())  # the call it runs for, or an empty one

    @property
    def request_stack(self) -> Requests:
        """The calls that it runs for here, the innermost on top."""
        return Requests(self)

    # --- being called ---------------------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work; a subclass says what that is."""
        raise NotImplementedError("Tasks must define the run method.")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run right here, as a function."""
        frame = context.current()
        if frame is not None and frame.task is self:
            request = frame.request
            if not request.called_directly and not request._protected:
                # An overridden `__call__` has come here from a worker's run, whose request stays in force.
                request._protected = True
                return cast("R_co", self.run(*args, **kwargs))
        context.push(self, Context(args=args, kwargs=kwargs))
        try:
            return cast("R_co", self.run(*args, **kwargs))
        finally:
            context.pop()

    def body(self) -> Callable[..., Any]:
        """Return what a worker calls: ``run``, or ``__call__`` where a subclass has overridden it."""
        return self.run if type(self).__call__ is Task.__call__ else self

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[R_co]:
        """Send it, to be called with these arguments by a worker."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> results.AsyncResult[R_co]:
        """Send it without blocking the event loop."""
        return await self.aapply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> results.AsyncResult[R_co]:
        """Send it, with options.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            task_id: Its id; made up when not given.
            producer: A `celeriac.ports.Producer` to send with, instead of the app's.
            link: Signature or signatures to apply with the result.
            link_error: Signature or signatures to apply when it fails.
            shadow: The name to show in logs and events.
            **options: ``countdown`` (seconds) or ``eta`` (datetime), ``expires`` (seconds or datetime),
                ``queue``, ``exchange``, ``routing_key``, ``priority``, ``serializer``, ``compression``,
                ``headers``, ``retry``, ``retry_policy``, ``time_limit``, ``soft_time_limit`` (seconds),
                ``ignore_result`` and others; unknown ones become message properties.

        Raises:
            TypeError: The function cannot be called with these arguments.
            ValueError: The soft time limit is above the hard one.
            BrokerUnreachable: Nobody answers at the broker's address.
            PublishTimeout: The broker did not confirm within ``publish_timeout_seconds``.
            EncodeError: An argument has no form in the serializer.
            UsageError: The arguments do not have what ``per``, ``unique_on`` or ``fair_by`` names.
            ConfigError: It has ``fair_by``, and the broker cannot do that.
        """
        app = self._get_app()
        args, kwargs, options = self._prepare(app, args, kwargs, shadow, options)
        if app.conf.task_always_eager:
            return eager.apply_as_sent(
                self, args, kwargs, link=link, link_error=link_error, task_id=task_id, options=options
            )
        if link is not None:
            options["link"] = link
        if link_error is not None:
            options["link_error"] = link_error
        sent: results.AsyncResult[R_co] = app.send_task(
            self.name,
            args,
            kwargs,
            task_id=task_id,
            producer=producer,
            result_cls=self.AsyncResult,
            task_type=self,
            **options,
        )
        return sent

    def map_async(self, it: Iterable[Any], **options: Any) -> results.GroupResult:
        """Send one call for each item, with the item as its argument, and return their results as a group.

        Calls go out while the items come, in batches of bounded size; of what was sent only the results to
        come are kept, so a generator may be as long as memory holds ids.

        Args:
            it: The items.
            **options: As for `apply_async`, for all calls; ``task_id`` is the id of the group.

        Raises:
            PartlySent: The broker failed after it had taken a part of the calls; it has their results.
        """
        sent: results.GroupResult = send_map(self, ((item,) for item in it), options)
        return sent

    def starmap_async(self, it: Iterable[Sequence[Any]], **options: Any) -> results.GroupResult:
        """Do as `map_async`, with the elements of each item as the arguments of its call."""
        sent: results.GroupResult = send_map(self, it, options)
        return sent

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> results.AsyncResult[R_co]:
        """Send it with the options of `apply_async`, without blocking the event loop."""
        app = self._get_app()
        async with app.client.abatch(brief=True):
            if self.name in app.uniques and not app.conf.task_always_eager:  # to ask for its lock blocks
                to_thread: Any = importlib.import_module("asyncio").to_thread
                sent: results.AsyncResult[R_co] = await to_thread(self.apply_async, args, kwargs, **options)
                return sent
            return self.apply_async(args, kwargs, **options)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> results.EagerResult[R_co]:
        """Run it right here, as a worker would, and return its result.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            link: Signatures to apply with the result.
            link_error: Signatures to apply when it fails.
            task_id: Its id.
            retries: How often it was retried before.
            throw: Raise what it raises; None: as the setting ``task_eager_propagates`` says.
            logfile: Shown in its request.
            loglevel: Shown in its request.
            headers: Headers of its own, which its request shows.
            **options: As for `apply_async`; times and routing are ignored.
        """
        return eager.apply(
            self,
            tuple(args or ()),
            dict(kwargs or {}),
            link=link,
            link_error=link_error,
            task_id=task_id,
            retries=retries or 0,
            throw=throw,
            headers=headers,
            options={"logfile": logfile, "loglevel": loglevel or 0, **options},
        )

    def takes_error(self) -> bool:
        """Return whether, as an errback, it is called with request, exception and traceback.

        Those made of a function with at least two positional parameters are; bound ones are not.
        """
        if not self._decorated or self._is_bound_function():
            return False
        return self._callable_with().takes_positional(2)

    # --- from inside a run ----------------------------------------------------------------------------

    def retry(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this run and have the task run again later; written ``raise self.retry(...)``.

        Args:
            args: Other positional arguments for the next run.
            kwargs: Other keyword arguments for the next run.
            exc: The reason; raised instead when no retries are left.
            throw: Raise Retry; False returns it.
            eta: The moment of the next run.
            countdown: Seconds until the next run; ``default_retry_delay`` when neither is given.
            max_retries: Other limit than the task's.
            **options: As for `apply_async`.

        Raises:
            Retry: Always, with ``throw``: the worker expects it.
            MaxRetriesExceededError: No retries are left, and there is no ``exc``.
        """
        return send_again(
            self,
            args,
            kwargs,
            exc,
            throw=throw,
            eta=eta,
            countdown=countdown,
            most=max_retries,
            options=options,
        )

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature:
        """Return the signature that sends the current call again, under its id."""
        return call_again(self, request or self.request, args, kwargs, queue, extra_options)

    subtask_from_request = signature_from_request

    def replace(self, sig: Signature) -> Any:
        """End this run and have a signature run in its place, under its id.

        Callbacks, errbacks, chord and the rest of the chain go over to it.

        Args:
            sig: The signature; the result of a group is the list of its members' results.

        Raises:
            Ignore: Always, in a worker: this run has no result.
            ConfigError: The signature belongs to a chord, or is an empty chain.
        """
        return self.on_replace(in_place_of(self, sig))

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Have the body of the chord that this call belongs to wait for one more part, and send that.

        Its result stands beside that of this call in what the body gets.

        Args:
            sig: The part; it gets its place in the chord.
            lazy: Do not send it: ``sig.delay()`` is to do so, before this run ends.

        Returns:
            Its result, or with ``lazy`` the signature.

        Raises:
            ValueError: This call is not a member of any chord.
            NotImplementedError: The result store cannot let a chord grow.
        """
        place_beside(self, sig)
        return sig if lazy else sig.delay()

    def on_replace(self, sig: Signature) -> Any:
        """Send the signature that replaces this run, and end the run."""
        if self.request.is_eager:
            return sig.apply().get()
        sig.delay()
        raise Ignore("Replaced by new task")

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state of one's own, with anything to go with it, for those who watch the task.

        Args:
            task_id: Of which task; the current one when not given.
            state: The name of the state.
            meta: What ``result.info`` shall be.
            **kwargs: Accepted for Celery's sake.
        """
        backend = self.backend
        if backend is None:
            return
        request = self.request
        outcome = Outcome(
            id=task_id or request.id or "",
            state=state or "",
            result=meta,
            children=[],
            group_id=request.group,
            parent_id=request.parent_id,
        )
        record = backend.encode(
            outcome, reply_to=request.reply_to, correlation_id=request.correlation_id or request.id
        )
        patience.store(self._get_app(), backend, [record])

    def update_progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell those who watch this task how far it has come.

        Stored as the state PROGRESS, with a meta of ``done``, ``total`` and ``message``; read as
        ``result.progress``, and shown by ``celery result ID --follow``.

        Args:
            done: How much is done, in units of your own.
            total: How much there is in all, if that is known.
            message: What is being done now.
        """
        self.update_state(state=states.PROGRESS, meta=Progress(done, total, message).as_meta())

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Tell monitors something about the current call.

        Args:
            type_: The type of the event, such as ``task-progress``.
            retry: Accepted for Celery's sake: connections are made anew by themselves.
            retry_policy: Accepted as ``retry`` is.
            **fields: What it tells, besides the task's id.

        Raises:
            TransportError: The broker cannot be reached.
        """
        request = self.request
        with self.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            dispatcher.send(type_, uuid=request.id, retry=retry, retry_policy=retry_policy, **fields)

    def add_trail(self, result: Any) -> Any:
        """Note a result as that of a child of the current call, and return it."""
        if self.trail:
            self.request.children.append(result)
        return result

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Have ``request`` be a call made of these arguments; for tests."""
        context.push(self, Context(*args, **kwargs))

    def pop_request(self) -> None:
        """Take back `push_request`."""
        context.pop()

    def shadow_name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> str | None:
        """Return the name to show in logs and events, or None for its own."""
        return None

    # --- as a signature -------------------------------------------------------------------------------

    def signature(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature:
        """Return a call of it as a value, with options of `apply_async`."""
        options.setdefault("app", self.app)
        immutable = options.pop("immutable", False)
        app = options.pop("app")
        return Signature(self, args, kwargs, options=options, immutable=immutable, app=app)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a call of it as a value; arguments can be added when it is applied."""
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """Return a call of it as a value that takes no more arguments."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, it: Iterable[Any]) -> Signature:
        """Return one call that runs it with each item as its argument, one after the other."""
        return xmap(self, it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Signature:
        """Return one call that runs it with the elements of each item as its arguments."""
        return xstarmap(self, it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> Signature:
        """Return calls with the lists of arguments in ``it``, ``n`` of them in one message."""
        return chunks(self, it, n, app=self.app)

    # --- its place in an app --------------------------------------------------------------------------

    def AsyncResult(self, task_id: str, **kwargs: Any) -> results.AsyncResult[R_co]:  # noqa: N802
        """Return the result of one of its calls."""
        app = self._get_app()
        if self._backend is not None:
            kwargs.setdefault("backend", self._backend)
        made: results.AsyncResult[R_co] = app.AsyncResult(task_id, task_name=self.name, **kwargs)
        return made

    @property
    def backend(self) -> ResultBackend | None:
        """Where its results are kept: the app's backend, unless another one was set."""
        return self._backend if self._backend is not None else self._get_app().backend

    @backend.setter
    def backend(self, backend: ResultBackend | None) -> None:
        self._backend = backend

    @property
    def __name__(self) -> str:
        """The name of its class, which is that of the function."""
        return str(type(self).__name__)

    def bind(self, app: Any) -> Any:
        """Make it a task of an app: take from the settings what it leaves open, and apply annotations."""
        self._app = app
        conf = app.conf
        for attribute, setting in self.from_config:
            if getattr(self, attribute, None) is None:
                setattr(self, attribute, conf[setting])
        if self.typing is None:
            self.typing = app.strict_typing
        self._exec_options = None
        self.__bound__ = True
        self.annotate()
        type(self).on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Run when a task of this class was bound to an app."""

    def annotate(self) -> None:
        """Set the attributes that the setting ``task_annotations`` has for it.

        A function becomes a method; ``"@name"`` wraps one. As in Celery the first source that knows the task
        counts, and what is meant for all tasks goes before that.
        """
        sources = self._get_app().annotations
        for found in (first_of(sources, "annotate", self), first_of(sources, "annotate_any")):
            for key, value in found.items():
                if key.startswith("@"):
                    self.add_around(key[1:], value)
                else:
                    setattr(self, key, MethodType(value, self) if isinstance(value, FunctionType) else value)

    def add_around(self, attr: str, around: Callable[[Any], Any]) -> None:
        """Wrap one of its methods; ``around`` is given the plain function, whose first argument is the task.

        The ``run`` of a task made of a function that is not bound has no such first argument.
        """
        if attr in self.__dict__:
            setattr(self, attr, around(getattr(self, attr)))
            return
        # On the class: Python looks up `__call__` there. A task made of a function has a class of its own.
        wrapped = around(getattr(type(self), attr))
        is_static = isinstance(_static(type(self), attr), staticmethod)
        setattr(type(self), attr, staticmethod(wrapped) if is_static else wrapped)

    def _get_app(self) -> Any:
        app = self.app
        if app is None:
            raise ConfigError(
                f"Task {self.name or type(self).__name__} belongs to no app: declare it with @app.task, or "
                "hand it to app.register_task()."
            )
        if not self.__bound__ and not app.finalized:
            app.finalize(auto=True)
        return app

    def _get_request(self) -> Context:
        return self.request

    def _get_exec_options(self) -> dict[str, Any]:
        options = self._exec_options
        if options is None:
            options = {
                name: value for name in EXEC_OPTIONS if (value := getattr(self, name, None)) is not None
            }
            self._exec_options = options
        return options

    def _callable_with(self) -> Parameters:
        parameters = self._parameters
        if parameters is None:
            parameters = self._parameters = Parameters(self.run)
        return parameters

    def _is_bound_function(self) -> bool:
        return not isinstance(_static(type(self), "run"), staticmethod)

    def _prepare(
        self,
        app: Any,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        shadow: str | None,
        options: dict[str, Any],
    ) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
        args = () if args is None else args if isinstance(args, (tuple, list)) else tuple(args)
        kwargs = {} if kwargs is None else kwargs
        if self.typing:
            (self._parameters or self._callable_with()).check(args, kwargs)
        own = self._exec_options
        if own is None:
            own = self._get_exec_options()
        options = {"ignore_result": self.ignore_result, **own, **options}
        hard = options.get("time_limit")
        if hard is not None:
            check_time_limits(options.get("soft_time_limit"), hard)
        shown = shadow or self.shadow_name(args, kwargs, options)
        if shown is not None:
            options["shadow"] = shown
        return args, kwargs, options

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name and where it is declared."""
        return _unpickle, (self.name, type(self).__module__)

    def __repr__(self) -> str:
        """Name the task and its app."""
        app = self.app
        return (
            f"<@task: {self.name} of {app.main or '__main__'} at {id(self):#x}>"
            if app is not None
            else f"<@task {self.name}>"
        )


def _static(cls: type[Any], name: str) -> Any:
    """Return an attribute of a class as it was written there: a staticmethod as such."""
    return next(vars(base)[name] for base in cls.__mro__ if name in vars(base))


def _unpickle(name: str, module: str) -> Any:
    found = importlib.import_module(module)
    if Task.default_app is not None:
        return Task.default_app().tasks[name]
    for value in vars(found).values():
        if isinstance(value, Task) and value.name == name:
            return value
    raise NotRegistered(name)
