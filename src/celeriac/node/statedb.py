"""The file that keeps what a worker knows over its restart: ``--statedb``."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from celeriac.clock import LamportClock
from celeriac.errors import ConfigError
from celeriac.node.revoked import Revoked
from celeriac.revocations import Remembered, Revocation

logger: logging.Logger = logging.getLogger("celery.worker.state")

_LOOK_SECONDS: Final = 1.0


class _Kept(msgspec.Struct):
    """What is in the file."""

    clock: int  # the logical one
    revoked: list[tuple[str, str, float]]  # stamp, value, and when it was made in epoch seconds


class StateDB:
    """Keeps revoked tasks, and the logical clock, in a file.

    What others have written there, such as Celery's file of the same name, is put aside and not read.

    Args:
        path: The file.
        revoked: What the node knows.
        clock: The app's logical clock.
    """

    def __init__(self, path: str, revoked: Revoked, clock: LamportClock) -> None:
        self._path = Path(path)
        self._revoked = revoked
        self._clock = clock
        self._written = -1

    async def open(self) -> None:
        """Read the file, if there is one.

        Raises:
            ConfigError: It cannot be read, or not be written.
        """
        try:
            kept = self._read()
            now = time.time()
            self._revoked.remember(
                Remembered(Revocation(value, stamp), max(0.0, now - made))
                for stamp, value, made in kept.revoked
            )
            self._clock.adjust(kept.clock)
            self._put(self._data())  # to know now that it can be written
        except OSError as exc:
            raise ConfigError(f"The state file {self._path} cannot be used: {exc.strerror}.") from exc

    async def run(self) -> None:
        """Write the file after what changes, until cancelled, and a last time then."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._revoked.changes != self._written:
                    await asyncio.to_thread(self._save, self._data())
        finally:
            self._save(self._data())

    def _save(self, data: bytes) -> None:
        try:
            self._put(data)
        except OSError as exc:
            logger.error("What was revoked is not written to %s: %s.", self._path, exc.strerror)

    def _read(self) -> _Kept:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return _Kept(0, [])
        try:
            return msgspec.json.decode(data, type=_Kept)
        except msgspec.DecodeError:
            aside = self._path.with_name(f"{self._path.name}.unread")
            self._path.rename(aside)
            logger.warning("%s is no state file of ours; it is %s now, and not read.", self._path, aside)
            return _Kept(0, [])

    def _data(self) -> bytes:
        """Return what is to be in the file now."""
        self._written, now = self._revoked.changes, time.time()
        revoked = [
            (kept.revocation.stamp, kept.revocation.value, now - kept.age_seconds)
            for kept in self._revoked.remembered()
        ]
        return msgspec.json.encode(_Kept(self._clock.value, revoked))

    def _put(self, data: bytes) -> None:
        """Replace the file in one step."""
        new = self._path.with_name(f"{self._path.name}.new")
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
