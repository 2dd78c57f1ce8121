"""The part of an app that leads to its broker and its results."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from celeriac import context, result
from celeriac.canvas.signature import Signature, signature
from celeriac.client import Client, TaskCall
from celeriac.codecs.registry import Codecs
from celeriac.errors import AlwaysEagerIgnored
from celeriac.hooks import Hooks
from celeriac.ids import IdSource
from celeriac.ports import ResultBackend, Transport
from celeriac.routing import Router
from celeriac.tasked import Tasked

_IDS = IdSource()


class Connected(Tasked):
    """Something that sends calls of tasks to a broker and reads their results; connected when first used.

    Args:
        changes: See `celeriac.configured.Configured`.
        source: See `celeriac.configured.Configured`.
        namespace: See `celeriac.configured.Configured`.
    """

    def __init__(self, changes: Mapping[str, Any], source: Any, namespace: str | None) -> None:
        super().__init__(changes, source, namespace)
        self.hooks: Hooks = Hooks()
        self.codecs: Codecs = Codecs()
        self.new_id: Callable[[], str] = _IDS.next
        self._client: Client | None = None
        self._transport: Transport | None = None
        self._backend: ResultBackend | None = None
        self.backend_is_loaded: bool = False  # loading it reads files, which an event loop should not do
        self._reply_address: Callable[[], str | None] | None = None
        self._router: Router | None = None

    def _settings_replaced(self) -> None:
        self._client = self._router = None

    # --- sending --------------------------------------------------------------------------------------

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

    def send_many(self, calls: Iterable[TaskCall]) -> list[Any]:
        """Send calls, hundreds in one round trip, and return their results.

        Raises:
            PartlySent: The broker failed after it had taken a part of them.
        """
        return self.client.send_many(calls)

    def send_all(self, sending: Iterable[Any]) -> list[Any]:
        """Run a generator that sends as it goes, in batches of bounded size; see `Client.send_all`."""
        return self.client.send_all(sending)

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
        if not self.backend_is_loaded:
            with self._lock:
                if not self.backend_is_loaded:
                    self._backend = _late("connections").connect_backend(
                        self._conf, self.codecs, self.transport, app_name=self.main, app=self
                    )
                    self.backend_is_loaded = True
        return self._backend

    @backend.setter
    def backend(self, backend: ResultBackend | None) -> None:
        self._backend, self.backend_is_loaded = backend, True
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

    def start_chord(self, group_id: str, size: int, members: Any, body: Any) -> None:
        """Prepare the result backend for a chord, before its header is sent.

        Args:
            group_id: The id of the header.
            size: How many parts there will be.
            members: The result of the header, as nested tuples.
            body: The signature to apply with the results, frozen.

        Raises:
            NotImplementedError: There is no result backend, or it cannot count the parts.
        """
        backend = self.backend
        if backend is None:
            raise NotImplementedError(
                "Starting chords requires a result backend to be configured: its body runs when the last "
                "result of its header has come in. Set result_backend."
            )
        if getattr(backend, "joins_chords", True):
            backend.start_chord(group_id, size, members)
        else:
            _late("polling").start_polling(self, group_id, members, body)

    def give_up_here(self, body: Any, error: Exception) -> None:
        """Call the errbacks of the body of a chord that will never run, right here: its header has failed.

        Args:
            body: The signature that was to be applied.
            error: What the header has failed with.
        """
        _late("eager").give_up(self, body, error)

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

    def _bound(self, base: type[Any]) -> Any:
        name = f"_{base.__name__}"
        if name not in self.__dict__:
            self.__dict__[name] = self.subclass_with_self(base)
        return self.__dict__[name]

    def close(self) -> None:
        """Close the connections of this process. Using the app afterwards opens new ones."""
        with self._lock:
            client, self._client = self._client, None
            backend, self._backend, self.backend_is_loaded = self._backend, None, False
            transport, self._transport = self._transport, None
            self._reply_address = None
        for part in (client, backend, transport):
            if part is not None:
                part.close()


def _late(name: str) -> Any:  # Any: a module
    """Return a module of this floor that many an app never needs, or not before it sends."""
    return importlib.import_module(f"celeriac.{name}")


def _nowhere() -> None:
    return None
