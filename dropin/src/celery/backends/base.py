"""The classes that result backends of other packages subclass, with Celery's methods.

A subclass says how one result is written and read. `celery.backends._adapted` makes of it what our apps and
workers ask of a backend.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from celeriac.backends.marks import Marks
from celeriac.backends.spec import BackendSpec
from celeriac.tries import Tries
from celeriac.wire.failure import exception_from_wire, exception_to_wire
from celery import states
from celery._state import get_current_task
from celery.backends._adapted import AdaptedBackend
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.result import result_from_tuple
from celery.utils.serialization import get_pickleable_exception, get_pickled_exception

__all__ = (
    "Backend",
    "BaseBackend",
    "BaseDictBackend",
    "BaseKeyValueStoreBackend",
    "DisabledBackend",
    "KeyValueStoreBackend",
    "get_current_task",
)

T = TypeVar("T")


class Backend(Marks):
    """Keeps results; a subclass implements `_store_result`, `_get_task_meta_for` and the like.

    Args:
        app: The app.
        serializer: Of results; the app's without.
        max_cached_results: Taken, and without a meaning: nothing is cached.
        accept: Content types to read; the app's without.
        expires: Seconds for which results are kept, or a timedelta; the app's without.
        expires_type: Converts ``expires``.
        url: The backend's URL.
        **kwargs: Taken, and without a meaning.
    """

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    subpolling_interval: float | None = None
    supports_native_join = False
    supports_autoexpire = False
    persistent = True

    def __init__(
        self,
        app: Any,  # Any: a Celeriac
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Any = None,
        expires: Any = None,
        expires_type: Any = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        conf = app.conf
        self.app = app
        self.url = url
        self.serializer: Any = serializer or conf.result_serializer
        self.accept: Any = accept if accept is not None else conf.result_accept_content or conf.accept_content
        self.expires: Any = self.prepare_expires(expires, expires_type)
        self.always_retry: bool = conf.result_backend_always_retry
        self.base_sleep_between_retries_ms: int = conf.result_backend_base_sleep_between_retries_ms
        self.max_sleep_between_retries_ms: int = conf.result_backend_max_sleep_between_retries_ms
        self.max_retries: float = conf.result_backend_max_retries

    @classmethod
    def from_spec(cls, spec: BackendSpec) -> AdaptedBackend:
        """Return the backend of an app's settings, as the app asks it."""
        return AdaptedBackend(cls(app=spec.app, url=spec.url), spec)

    def as_uri(self, include_password: bool = False) -> str:
        """Return its URL."""
        return self.url or ""

    def prepare_expires(self, value: Any, type: Any = None) -> Any:  # Any: seconds, or what `type` makes
        """Return the seconds for which results are kept; None for ever."""
        found = self.app.conf.result_expires if value is None else value
        seconds = found.total_seconds() if hasattr(found, "total_seconds") else found
        return type(seconds) if type is not None and seconds is not None else seconds

    # --- what a subclass implements -----------------------------------------------------------------

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no _store_result()")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} has no _get_task_meta_for()")

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not implement forget.")

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no _save_group()")

    def _restore_group(self, group_id: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no _restore_group()")

    def _delete_group(self, group_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no _delete_group()")

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Return whether an error passes; where `result_backend_always_retry` is on, it is tried again."""
        return False

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        """Be told of an error that passes, before it is tried again: connections may be made anew."""

    def cleanup(self) -> None:
        """Remove expired results."""

    def process_cleanup(self) -> None:
        """Tidy up after a task."""

    # --- values and bytes ---------------------------------------------------------------------------

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        content_type, encoding, payload = self.app.codecs.encode(data, self.serializer)
        return content_type, encoding, payload if encoding == "binary" else payload.decode(encoding)

    def encode(self, data: Any) -> Any:
        """Return a value in the serializer of results."""
        return self._encode(data)[2]

    def decode(self, payload: Any) -> Any:
        """Return the value of a text or bytes in the serializer of results."""
        if payload is None:
            return None
        raw = payload.encode() if isinstance(payload, str) else bytes(payload)
        codecs = self.app.codecs
        content_type, encoding, _ = codecs.encode(None, self.serializer)
        return codecs.decode(raw, content_type, encoding, codecs.accept_set(self.accept))

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return what stands for an exception in a store."""
        if (serializer or self.serializer) == "pickle":
            return get_pickleable_exception(exc)
        return exception_to_wire(exc, self.app.codecs, self.serializer)

    def exception_to_python(self, exc: Any) -> Any:
        """Return the exception that something stands for."""
        if isinstance(exc, BaseException):
            return get_pickled_exception(exc)
        return exception_from_wire(exc) if exc else exc

    def prepare_value(self, result: Any) -> Any:
        """Return a value in the form in which it is stored."""
        return result.as_tuple() if hasattr(result, "as_tuple") else result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return a result in the form in which it is stored."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return what is stored of a task, exceptions made again."""
        if meta.get("status") in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def decode_result(self, payload: Any) -> dict[str, Any]:
        """Return what is stored of a task from its text or bytes."""
        return self.meta_from_decoded(self.decode(payload))

    def current_task_children(self, request: Any = None) -> list[Any]:
        """Return the results of the calls that a task has made, as tuples."""
        request = request or getattr(get_current_task(), "request", None)
        children = getattr(request, "children", None) or []
        return [one.as_tuple() if hasattr(one, "as_tuple") else one for one in children]

    def _get_result_meta(
        self, result: Any, state: str, traceback: Any, request: Any, **kwargs: Any
    ) -> dict[str, Any]:
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": getattr(request, "date_done", None),
        }
        for name, source in (("group_id", "group"), ("parent_id", "parent_id")):
            if getattr(request, source, None):
                meta[name] = getattr(request, source)
        if self.app.conf.result_extended and request is not None:
            meta |= {name: getattr(request, name, None) for name in ("args", "kwargs", "retries")}
            meta |= {"name": getattr(request, "task", None), "worker": getattr(request, "hostname", None)}
            meta["queue"] = (getattr(request, "delivery_info", None) or {}).get("routing_key")
        return meta

    # --- one result ---------------------------------------------------------------------------------

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        """Store what became of a task; return it in the form in which it is stored.

        Raises:
            BackendStoreError: It failed again and again; see `exception_safe_to_retry`.
        """
        prepared = self.encode_result(result, state)
        self._tried(
            lambda: self._store_result(task_id, prepared, state, traceback, request=request, **kwargs),
            BackendStoreError("failed to store result on the backend", task_id=task_id, state=state),
        )
        return prepared

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return what is stored of a task.

        Raises:
            BackendGetMetaError: It failed again and again; see `exception_safe_to_retry`.
        """
        failed = BackendGetMetaError("failed to get meta", task_id=task_id)
        return self._tried(lambda: self._get_task_meta_for(task_id), failed)

    def _tried(self, call: Callable[[], T], failed: Exception) -> T:
        """Return what a call returns, made again after what passes, where `always_retry` is on."""
        tries = Tries(
            first_ms=self.base_sleep_between_retries_ms,
            most_ms=self.max_sleep_between_retries_ms,
            most=self.max_retries if self.always_retry else 0,
        )
        for pause in itertools.chain(tries.pauses(), [None]):
            try:
                return call()
            except Exception as exc:
                if not self.always_retry or not self.exception_safe_to_retry(exc):
                    raise
                if pause is None:
                    raise failed from exc
                self.on_backend_retryable_error(exc)
                time.sleep(pause)
        raise AssertionError("the last try has returned or raised")

    def get_state(self, task_id: str) -> str:
        """Return a task's state."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """Return a task's result."""
        return self.get_task_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> Any:
        """Return the traceback of a task that failed."""
        return self.get_task_meta(task_id).get("traceback")

    def forget(self, task_id: str) -> None:
        """Remove what is stored of a task."""
        self._forget(task_id)

    def save_group(self, group_id: str, result: Any) -> Any:
        """Keep the results of a group."""
        return self._save_group(group_id, result)

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """Return the results of a group; None when nothing is kept."""
        meta = self._restore_group(group_id)
        return meta["result"] if meta else None

    def delete_group(self, group_id: str) -> None:
        """Remove what is kept of a group."""
        self._delete_group(group_id)


BaseBackend = BaseDictBackend = Backend


class KeyValueStoreBackend(Backend):
    """Keeps results in what has keys; a subclass implements `get`, `set`, `delete` and perhaps `mget`."""

    task_keyprefix = "celery-task-meta-"
    group_keyprefix = "celery-taskset-meta-"
    chord_keyprefix = "chord-unlock-"
    implements_incr = False

    def get(self, key: Any) -> Any:
        """Return what a key has; None for nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no get()")

    def mget(self, keys: Sequence[Any]) -> list[Any]:
        """Return what several keys have."""
        return [self.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> Any:
        """Give a key a value."""
        raise NotImplementedError(f"{type(self).__name__} has no set()")

    def delete(self, key: Any) -> Any:
        """Take a key away."""
        raise NotImplementedError(f"{type(self).__name__} has no delete()")

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        return self.set(key, value)

    def get_key_for_task(self, task_id: str, key: str = "") -> str:
        """Return the key of a task's result."""
        return f"{self.task_keyprefix}{task_id}{key}"

    def get_key_for_group(self, group_id: str, key: str = "") -> str:
        """Return the key of a group's shape."""
        return f"{self.group_keyprefix}{group_id}{key}"

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        if self._get_task_meta_for(task_id)["status"] == states.SUCCESS:
            return result  # never overwritten: a copy of the task may be late
        meta = self._get_result_meta(result, state, traceback, request)
        meta["task_id"] = task_id
        self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        document = self.get(self.get_key_for_task(task_id))
        if not document:
            return {"status": states.PENDING, "result": None}
        return self.decode_result(document)

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _save_group(self, group_id: str, result: Any) -> Any:
        self.set(self.get_key_for_group(group_id), self.encode({"result": result.as_tuple()}))
        return result

    def _restore_group(self, group_id: str) -> Any:
        document = self.get(self.get_key_for_group(group_id))
        if not document:
            return None
        meta = self.decode(document)
        return {**meta, "result": result_from_tuple(meta["result"], app=self.app)}

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))


BaseKeyValueStoreBackend = KeyValueStoreBackend


class DisabledBackend(Backend):
    """Keeps nothing."""

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""

    def as_uri(self, include_password: bool = True) -> str:
        """Return what stands for no backend."""
        return "disabled://"

    def _get_task_meta_for(self, task_id: str) -> NoReturn:
        raise NotImplementedError(
            "No result backend is configured. Set result_backend, or do not ask for results."
        )
