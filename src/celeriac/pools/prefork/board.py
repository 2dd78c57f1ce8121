"""The board: what each child is doing, in memory that parent and children share.

One mapping, made before the forker is. Every slot has a few words of eight bytes and an outbox: a
ring of bytes into which the child writes its reports. A child that is killed between two
machine instructions leaves exact accounts: which job it had begun, and the report of every job before it.

Words are written by one side only, through views of native width, so each write is one store. Everything
below the head of a ring is the parent's, everything between head and tail has been written completely.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Self

OUTBOX_BYTES = 128 * 1024
_WORDS = 16  # a slot's words fill two cache lines: children do not fight over one

_PID, _PHASE, _JOB, _STARTED, _DONE, _RSS, _TAIL, _HEAD = range(8)

_LENGTH = struct.Struct("=I")
_SKIP = 0xFFFFFFFF  # instead of a length: the rest of the ring up to its end is unused

STARTING, READY, ENDING = range(3)


class Board:
    """The shared memory of a pool.

    Args:
        slots: How many children there may be at once. Memory that no child touches costs nothing.
        descriptor: Of its memory, for programs that do not inherit the mapping; the board closes it.
    """

    def __init__(self, slots: int, descriptor: int | None = None) -> None:
        self.slots = slots
        self._words_bytes = slots * _WORDS * 8
        self.descriptor: int | None = descriptor
        size = self._words_bytes + slots * OUTBOX_BYTES
        self._memory = mmap.mmap(-1 if descriptor is None else descriptor, size)
        self._view = memoryview(self._memory)
        self._integers = self._view[: self._words_bytes].cast("Q")
        self._doubles = self._view[: self._words_bytes].cast("d")

    @classmethod
    def shared(cls, slots: int) -> Self:
        """Return a board with a descriptor."""
        descriptor = os.memfd_create("celeriac-board", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, slots * (_WORDS * 8 + OUTBOX_BYTES))
        return cls(slots, descriptor)

    def slot(self, index: int) -> Slot:
        """Return the part of one child; parent and child each make their own."""
        start = self._words_bytes + index * OUTBOX_BYTES
        return Slot(self._integers, self._doubles, index * _WORDS, self._memory, start)

    def close(self) -> None:
        """Unmap the memory; no slot may be used any more."""
        self._integers.release()
        self._doubles.release()
        self._view.release()
        self._memory.close()
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class Slot:
    """One child's words and its outbox.

    The child calls `ready`, `begin`, `done`, `post` and `ending`; the parent `reset`, `take` and the
    properties.
    """

    __slots__ = ("_base", "_doubles", "_integers", "_memory", "_ring")

    def __init__(
        self,
        integers: memoryview[int],
        doubles: memoryview[float],
        base: int,
        memory: mmap.mmap,
        ring: int,
    ) -> None:
        self._integers = integers
        self._doubles = doubles
        self._base = base
        self._memory = memory
        self._ring = ring

    # --- the child's side ---------------------------------------------------------------------------

    def ready(self, pid: int) -> None:
        """Say that the child takes jobs now."""
        self._integers[self._base + _PID] = pid
        self._integers[self._base + _PHASE] = READY

    def begin(self, number: int, now: float) -> None:
        """Say that a job begins. From here on it counts as started, whatever happens."""
        self._doubles[self._base + _STARTED] = now
        self._integers[self._base + _JOB] = number

    def note_memory(self, kib: int) -> None:
        """Say how much memory the child uses."""
        self._integers[self._base + _RSS] = kib

    def ending(self) -> None:
        """Say that the child is about to end of its own will."""
        self._integers[self._base + _PHASE] = ENDING

    @property
    def tail(self) -> int:
        """How many bytes the child has ever written into its outbox."""
        return self._integers[self._base + _TAIL]

    def post(self, report: bytes) -> bool:
        """Append a report; False when there is no room for it now.

        Reports longer than a quarter of the ring never fit: they travel by other means.
        """
        integers, base = self._integers, self._base
        tail = integers[base + _TAIL]
        size = 4 + len(report)
        room = OUTBOX_BYTES - (tail - integers[base + _HEAD])
        offset = tail % OUTBOX_BYTES
        to_end = OUTBOX_BYTES - offset
        start = self._ring + offset
        if to_end < size:  # a report is never split: what is left of the ring is skipped
            if to_end + size > room:
                return False
            if to_end >= 4:
                _LENGTH.pack_into(self._memory, start, _SKIP)
            tail += to_end
            start = self._ring
        elif size > room:
            return False
        _LENGTH.pack_into(self._memory, start, len(report))
        self._memory[start + 4 : start + size] = report
        integers[base + _TAIL] = tail + size  # last: nobody reads what lies beyond it
        return True

    # --- the parent's side --------------------------------------------------------------------------

    def reset(self) -> None:
        """Clear the slot for a new child; the old one is dead."""
        for word in range(_WORDS):
            self._integers[self._base + word] = 0

    @property
    def pid(self) -> int:
        """The child's process; 0 before it is ready."""
        return self._integers[self._base + _PID]

    @property
    def phase(self) -> int:
        """STARTING, READY or ENDING."""
        return self._integers[self._base + _PHASE]

    @property
    def job(self) -> int:
        """The number of the job that the child began last; 0 before the first."""
        return self._integers[self._base + _JOB]

    @property
    def started(self) -> float:
        """When it began, in seconds since the epoch."""
        return self._doubles[self._base + _STARTED]

    @property
    def memory_kib(self) -> int:
        """What the child said of its memory last."""
        return self._integers[self._base + _RSS]

    @property
    def waiting(self) -> bool:
        """Whether there are reports that were not taken."""
        return self._integers[self._base + _HEAD] != self._integers[self._base + _TAIL]

    def take(self, tail: int | None = None) -> Iterator[bytes]:
        """Yield the reports that are there and make their room free.

        Args:
            tail: Up to where the child said that it has written. Leave it out only when the child is dead or
                has been quiet for a while: not every processor shows the bytes before it shows the tail.
        """
        integers, base = self._integers, self._base
        head = integers[base + _HEAD]
        if tail is None:
            tail = integers[base + _TAIL]
        while head < tail:
            offset = head % OUTBOX_BYTES
            to_end = OUTBOX_BYTES - offset
            if to_end < 4:
                head += to_end
                continue
            start = self._ring + offset
            (length,) = _LENGTH.unpack_from(self._memory, start)
            if length == _SKIP:
                head += to_end
                continue
            yield self._memory[start + 4 : start + 4 + length]
            head += 4 + length
            integers[base + _HEAD] = head
        integers[base + _HEAD] = head
