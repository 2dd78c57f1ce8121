"""The drop-in is part of these tests only: elsewhere the core is alone, as it has to be able to be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import celery._state as state
from celeriac.hooks import Signal
from celery import signals

state.uninstall()  # importing it has connected it


@pytest.fixture(autouse=True)
def drop_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connect the drop-in for one test, and forget its apps and tasks afterwards."""
    for name in (
        "CELERY_CONFIG_MODULE",
        "CELERY_BROKER_URL",
        "CELERY_RESULT_BACKEND",
        "DJANGO_SETTINGS_MODULE",
    ):
        monkeypatch.delenv(name, raising=False)
    state.install()
    yield
    state.uninstall()
    for signal in vars(signals.HOOKS).values():
        if isinstance(signal, Signal):
            signal.receivers = []
