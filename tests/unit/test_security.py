"""``app.setup_security()``: what has to be set, and that tasks then travel signed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from celeriac.app import Celeriac
from celeriac.errors import ConfigError
from certificates import NOW, certificate_pem, key_pem, rsa_key
from desk import new_app

SIGNED: dict[str, Any] = {"task_serializer": "auth", "accept_content": ["auth"]}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    key = rsa_key("alice")
    (tmp_path / "alice.key").write_bytes(key_pem(key))
    (tmp_path / "alice.pem").write_bytes(certificate_pem(key, "alice"))
    return {
        "security_key": str(tmp_path / "alice.key"),
        "security_certificate": str(tmp_path / "alice.pem"),
        "security_cert_store": str(tmp_path / "*.pem"),
    }


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Celeriac, "now", lambda self: NOW.astimezone(datetime.UTC))


def test_tasks_travel_signed(files: dict[str, Any]) -> None:
    app = new_app(**SIGNED, **files)
    app.setup_security()

    @app.task
    def add(x: int) -> None: ...

    add.delay(1)

    accept = app.codecs.accept_set(["auth"])
    data = app.codecs.encode([1], "auth")[2]
    assert app.codecs.decode(data, "application/data", "utf-8", accept) == [1]
    assert app.transport.size("celery") == 1


def test_the_store_may_be_a_folder(files: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "alice.pem").write_bytes(Path(files["security_certificate"]).read_bytes())

    new_app(**SIGNED, **{**files, "security_cert_store": str(folder)}).setup_security()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"task_serializer": "json"}, "task_serializer = 'auth'"),
        ({"accept_content": ["auth", "json"]}, "accept_content"),
        ({"security_key": None}, "security_key"),
        ({"security_key": "/nowhere/key"}, "'/nowhere/key' cannot be read"),
        ({"security_cert_store": "/nowhere/*.pem"}, "matches no file"),
    ],
)
def test_what_is_missing_is_named(files: dict[str, str], changes: dict[str, Any], complaint: str) -> None:
    app = new_app(**{**SIGNED, **files, **changes})

    with pytest.raises(ConfigError, match=complaint.replace("*", r"\*")):
        app.setup_security()
