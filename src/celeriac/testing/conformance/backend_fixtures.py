"""What a class of backend tests overrides, and what it gets for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from celeriac.backends import BackendSpec, connect
from celeriac.codecs import Codecs
from celeriac.ports import ResultBackend


class BackendFixtures:
    """The fixtures; override `backend_url` at least."""

    across_processes = True  # other processes see the results
    expires = True
    has_groups = True
    has_chords = True
    keeps_relations = True  # children, group_id and parent_id
    keeps_extended = True
    small = False  # results have to be below a megabyte

    @pytest.fixture
    def backend_url(self) -> str:
        """Return where the results of the test are; override it."""
        raise NotImplementedError

    @pytest.fixture
    def backend_options(self) -> dict[str, Any]:  # Any: backend options
        """Return the backend's options; override it where needed."""
        return {}

    @pytest.fixture
    def unreachable_url(self) -> str | None:
        """Return a URL, with the password ``sekrit`` where it can have one, where nobody answers."""
        return None

    @pytest.fixture
    def spec(self, backend_url: str, backend_options: dict[str, Any]) -> BackendSpec:
        """Return what backends are made of; override it to add a transport."""
        return BackendSpec(url=backend_url, codecs=Codecs(), options=backend_options)

    @pytest.fixture
    def make_backend(self, spec: BackendSpec) -> Iterator[Callable[..., ResultBackend]]:
        """Yield a function that makes a backend, with changes to the spec; all are closed at the end."""
        made: list[ResultBackend] = []

        def make(**changes: Any) -> ResultBackend:
            backend = connect(msgspec.structs.replace(spec, **changes))
            assert backend is not None
            made.append(backend)
            return backend

        yield make
        for backend in made:
            backend.close()

    @pytest.fixture
    def client(self, make_backend: Callable[..., ResultBackend]) -> ResultBackend:
        """Return the backend of one who waits."""
        return make_backend()

    @pytest.fixture
    def worker(self, make_backend: Callable[..., ResultBackend]) -> ResultBackend:
        """Return the backend of one who stores."""
        return make_backend()
