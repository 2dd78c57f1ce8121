"""The port of what limits a fleet: permits, of which only so many are held at a time, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

# A permit that nobody renews is free after this; with the time in which that is noticed it stays below the
# 15 s that are promised.
PERMIT_SECONDS: Final = 12.0
RENEW_SECONDS: Final = 3.0  # several renewals may fail before a permit is lost


class Claim(msgspec.Struct, frozen=True):
    """Somebody's wish for a permit, and what that is known by once it is held."""

    limited: str  # what the permits are for, such as `shop.pay[tenant 7]`
    limit: int  # how many may be held at a time
    holder: str  # unique in the fleet
    # Above 0, it is held for so long, and neither renewed nor given back: so many may begin in that time.
    keeps_seconds: float = 0.0


class Permits(Protocol):
    """Keeps the permits of a fleet. Its calls block, and may be made from one thread at a time.

    Who asks and gets none stands in line, so that all nodes are served in the order of their asking. A place
    in line ends like a permit: when it is given back, or `PERMIT_SECONDS` after it was last asked for.
    """

    def exchange(self, back: Sequence[Claim], wanted: Sequence[Claim]) -> list[bool]:
        """Give permits and places in line back, then ask for others, in one round trip.

        Args:
            back: What is not needed any more; what is not there does not matter.
            wanted: What to ask for, in this order. Asking for what is held renews it.

        Returns:
            For each that is wanted whether it is held now; else it stands in line.

        Raises:
            TransportError: The store cannot be reached, or refuses; some of it may have been done.
        """
        ...

    def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """Hold permits for another `PERMIT_SECONDS`, in one round trip.

        Returns:
            For each whether it was still held; others have what was not.

        Raises:
            TransportError: The store cannot be reached, or refuses.
        """
        ...

    def close(self) -> None:
        """Close the connection; permits that are held stay so until their time is over."""
        ...
