"""What goes wrong with Redis, told in Celeriac's words; done once, at the edge of each class of the port."""

from __future__ import annotations

from celeriac.errors import BrokerUnreachable, PublishTimeout, TransportError
from celeriac.net.redis_link import NoAnswer, RedisFailure, Refused, Unreachable


def translated(
    failure: RedisFailure, address: str, doing: str, *, publishing: bool = False
) -> TransportError:
    """Return the error to raise instead.

    Args:
        failure: What went wrong.
        address: The broker's URL, its password hidden.
        doing: What was being done, to stand behind "while".
        publishing: Whether running out of time means that a publish budget ran out.
    """
    where = f"Redis at {address}"
    if isinstance(failure, Unreachable):
        return BrokerUnreachable(f"{where} cannot be reached while {doing}: {failure}")
    if isinstance(failure, NoAnswer) and publishing:
        return PublishTimeout(f"{where} did not confirm in time while {doing}; it may still have been done")
    if isinstance(failure, Refused):
        return TransportError(f"{where} refused while {doing}: {failure}", retryable=failure.passing)
    if isinstance(failure, NoAnswer):
        return TransportError(f"{where} is silent while {doing}: {failure}")
    return TransportError(f"The connection to {where} was lost while {doing}: {failure}")
