"""Result backends are found by scheme, alias, entry point or dotted name."""

from __future__ import annotations

import pytest

from celeriac.backends import BackendSpec, connect, options_from
from celeriac.errors import ConfigError


class Kept:
    """A stand-in that keeps the spec it was made from."""

    def __init__(self, spec: BackendSpec) -> None:
        self.spec = spec


@pytest.mark.parametrize("url", ["disabled", "disabled://", ""])
def test_disabled_results_have_no_backend(url: str) -> None:
    assert connect(BackendSpec(url=url)) is None


@pytest.mark.parametrize(
    "url", ["celeriac_tests_backend+sqlite:///x", "celeriac_tests_backend://host", "celeriac_tests_backend"]
)
def test_an_alias_wins_over_the_table(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("kept_backend")
    module.Kept = Kept  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kept_backend", module)

    backend = connect(BackendSpec(url=url, aliases={"celeriac_tests_backend": "kept_backend:Kept"}))
    dotted = connect(BackendSpec(url="kept_backend.Kept://host"))

    assert isinstance(backend, Kept)
    assert backend.spec.url == url
    assert isinstance(dotted, Kept)


def test_a_misspelt_backend_is_answered_with_the_right_name() -> None:
    with pytest.raises(ConfigError, match=r"'reddis'; did you mean 'redis'\?"):
        connect(BackendSpec(url="reddis://:secret@localhost/0"))


def test_the_error_hides_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        connect(BackendSpec(url="nothing.like.it://user:secret@host"))

    assert "secret" not in str(caught.value)
    assert "nothing.like.it" in str(caught.value)


def test_options_are_the_settings_of_the_family_with_the_transport_options_on_top() -> None:
    settings = {
        "task_default_queue": "celery",
        "database_table_names": {"task": "t"},
        "cache_backend_options": None,
        "result_backend_transport_options": {"global_keyprefix": "p_"},
    }

    options = options_from(settings)

    assert options["database_table_names"] == {"task": "t"}
    assert options["global_keyprefix"] == "p_"
    assert "task_default_queue" not in options
    assert "cache_backend_options" not in options
