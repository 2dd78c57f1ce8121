"""The obligations of `celeriac.pauses.Pauses`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from celeriac.pauses import Pauses
from celeriac.ports import Transport
from celeriac.testing.conformance.fixtures import TransportFixtures


class PauseTests(TransportFixtures):
    """What is paused is so for everybody, until it is resumed."""

    @pytest.fixture
    def pauses(self, transport: Transport) -> Iterator[Pauses]:
        """Yield the paused queues of the transport."""
        with closing(transport.pauses()) as pauses:
            yield pauses

    def test_a_paused_queue_is_so_for_others_until_it_is_resumed(
        self, transport: Transport, pauses: Pauses
    ) -> None:
        one, other = (f"pause é {uuid.uuid4().hex}" for _ in range(2))
        assert pauses.among([one, other]) == set()

        pauses.pause(one)

        with closing(transport.pauses()) as others:
            assert others.among([one, other]) == {one}
            assert others.among([]) == others.among([other]) == set()
            others.resume(one)
        assert pauses.among([one, other]) == set()

    def test_pausing_and_resuming_twice_is_the_same_as_once(self, pauses: Pauses) -> None:
        name = f"pause {uuid.uuid4().hex}"

        pauses.pause(name)
        pauses.pause(name)
        assert pauses.among([name]) == {name}

        pauses.resume(name)
        pauses.resume(name)
        assert pauses.among([name]) == set()

    def test_a_closed_one_opens_again(self, pauses: Pauses) -> None:
        name = f"pause {uuid.uuid4().hex}"
        pauses.pause(name)
        pauses.close()

        assert pauses.among([name]) == {name}
        pauses.resume(name)
