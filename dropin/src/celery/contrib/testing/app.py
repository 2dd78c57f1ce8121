"""Apps for tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Final

from celeriac.app import Celeriac
from celery import Celery, _state

__all__ = ("DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app")

DEFAULT_TEST_CONFIG: Final[dict[str, Any]] = {  # Any: values of settings
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}


class Trap:
    """Stands where there shall be no current app: whatever is asked of it is an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("Test depends on current_app")


class UnitLogging:
    """Leaves the logs of a test as the test has them.

    Args:
        app: The app.
    """

    already_setup = True

    def __init__(self, app: Any = None) -> None:
        self.app = app

    def setup(self, loglevel: Any = None, logfile: str | None = None, **kwargs: Any) -> bool:
        """Do nothing."""
        return False

    def setup_logging_subsystem(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        """Return a logger."""
        return logging.getLogger(name)


def TestApp(  # noqa: N802 - Celery's name
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: str | None = None,
    broker: str | None = None,
    **kwargs: Any,
) -> Celeriac:
    """Return an app whose messages and results stay in this process.

    Args:
        name: Its name.
        config: Settings, before those of `DEFAULT_TEST_CONFIG`.
        enable_logging: Have a worker set up the logs.
        set_as_current: Make it the current app.
        log: The class of ``app.log``, when logging is not enabled.
        backend: Where results are kept.
        broker: Where messages are kept.
        **kwargs: For the app.
    """
    settings = {**deepcopy(DEFAULT_TEST_CONFIG), **(config or {})}
    broker = broker or settings.pop("broker_url", None)
    backend = backend or settings.pop("result_backend", None)
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults(settings)
    return app


TestApp.__test__ = False  # type: ignore[attr-defined]  # no test, though its name begins like one's


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Let whoever depends on there being a current app fail, as long as the block lasts."""
    with _state.remembered():
        _state.set_trap(Trap())
        yield


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """Put back, when the block ends, which app was the current one before.

    Args:
        app: The app of the test.
        use_trap: Let there be no current app in the block; who depends on one fails.
    """
    with set_trap(app) if use_trap else _state.remembered():
        yield
