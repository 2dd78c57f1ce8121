"""The broker and the result store that settings name."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.connections import broker_url, is_embedded


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "sqlite://"),
        ({"broker_url": "redis://host"}, "redis://host"),
        ({"broker_url": ["amqp://a", "amqp://b"]}, "amqp://a;amqp://b"),
        ({"broker_url": "redis://r", "broker_write_url": "redis://w"}, "redis://w"),
        ({"broker_host": "mq"}, "amqp://mq/"),
        (
            {
                "broker_transport": "redis", "broker_host": "h", "broker_port": 1, "broker_vhost": "2",
                "broker_user": "u@x", "broker_password": "p:w",
            },
            "redis://u%40x:p%3Aw@h:1/2",
        ),
    ],
)  # fmt: skip
def test_the_url_is_put_together_from_the_settings(settings: dict[str, Any], url: str) -> None:
    assert broker_url(Celeriac("proj", **settings).conf, write=True) == url


def test_consumers_may_have_a_url_of_their_own() -> None:
    conf = Celeriac("proj", broker_url="redis://both", broker_read_url="redis://reading").conf

    assert broker_url(conf, write=False) == "redis://reading"
    assert broker_url(conf, write=True) == "redis://both"


def test_without_a_broker_queue_and_results_are_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with Celeriac("proj") as app:

        @app.task
        def add(x: int, y: int) -> int:
            return x + y

        result = add.delay(1, 2)

        assert is_embedded(app.conf)
        assert str(tmp_path) in app.transport.address
        assert app.transport.size("celery") == 1
        assert result.state == "PENDING"


def test_results_are_not_kept_with_a_server_and_nothing_said() -> None:
    app = Celeriac("proj", broker="memory://no-results")

    assert app.backend is None
    assert not is_embedded(app.conf)


def test_results_can_be_turned_off_with_the_embedded_broker(tmp_path: Path) -> None:
    app = Celeriac("proj", broker=f"sqlite:///{tmp_path}/q.db", backend="disabled")

    assert app.backend is None


def test_a_backend_is_told_what_the_settings_say() -> None:
    specs = []

    class Backend:
        def __init__(self, spec: Any) -> None:
            specs.append(spec)

    app = Celeriac(
        "proj",
        broker="memory://spec",
        result_backend=Backend,
        result_serializer="pickle",
        result_accept_content=["pickle"],
        result_expires=datetime.timedelta(minutes=1),
        result_extended=True,
    )

    assert isinstance(app.backend, Backend)
    [spec] = specs
    assert (spec.serializer, spec.expires_seconds, spec.extended) == ("pickle", 60.0, True)
    assert spec.accept == frozenset({"application/x-python-serialize"})
    assert spec.transport is app.transport
    assert spec.app_name == "proj"
