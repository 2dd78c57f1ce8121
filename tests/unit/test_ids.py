"""Task ids are unique, also across a fork."""

from __future__ import annotations

import os
import uuid

from celeriac.ids import IdSource


def test_ids_are_valid_version_4_uuids() -> None:
    source = IdSource()

    ids = [source.next() for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert all(uuid.UUID(one).version == 4 and str(uuid.UUID(one)) == one for one in ids)
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}


def test_a_forked_child_makes_ids_of_its_own() -> None:
    source = IdSource()
    source.next()
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        os.write(writing, source.next().encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 36).decode() != source.next()
    os.close(reading)
    os.close(writing)
