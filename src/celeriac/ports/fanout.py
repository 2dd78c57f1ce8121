"""The port of broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from celeriac.message import Broadcast
from celeriac.queues import Queue


class Subscription(Protocol):
    """What is heard on one queue of broadcasts; used on the loop that subscribed.

    What nobody has taken yet is bounded: when there is too much, the oldest is missed.
    """

    missed: int  # broadcasts that were dropped because nobody took them in time

    async def next(self) -> Broadcast:
        """Wait for the next broadcast; cancelling it loses nothing.

        Raises:
            TransportError: The connection was lost, and what is sent meanwhile is missed; subscribe again.
        """
        ...

    async def close(self) -> None:
        """Listen no longer."""
        ...


class Fanout(Protocol):
    """Broadcasts: everybody who has subscribed gets every message sent after that. Cheap when nobody has."""

    def publish(self, batch: Sequence[Broadcast], *, deadline: float) -> int | None:
        """Send, from any thread; after a fork too.

        Args:
            batch: What to send; order is kept.
            deadline: Budget in seconds for connecting and writing together.

        Returns:
            How many subscriptions the messages went to, all together; None where the broker does not say.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    async def apublish(self, batch: Sequence[Broadcast], *, deadline: float) -> int | None:
        """Do the same without blocking the caller's loop; it is meant for those who send often."""
        ...

    async def subscribe(self, queue: Queue) -> Subscription:
        """Begin to listen, and return when everything that is sent from now on is heard.

        Args:
            queue: Its name, exchange and routing key (for a topic, a pattern), and how it is to be declared.
                A queue of a direct exchange is for answers: what was sent to one before is gone.

        Raises:
            TransportError: The broker cannot be reached, or refuses.
        """
        ...

    async def aclose(self) -> None:
        """End all subscriptions of the running loop and close its connections."""
        ...

    def close(self) -> None:
        """Close the connections that `publish` has opened."""
        ...
