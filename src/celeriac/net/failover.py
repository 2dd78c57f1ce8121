"""In which order the brokers of a list are tried."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable

from celeriac.errors import ConfigError
from celeriac.net.url import mask

Strategy = str | Callable[[list[str]], Iterable[str]]


def in_order(url: str, strategy: Strategy | None) -> str:
    """Return the broker URLs, joined by ``;``, in the order in which to try them, round and round.

    Args:
        url: One or more, joined by ``;``.
        strategy: ``broker_failover_strategy``: "round-robin" or None (as they stand), "shuffle", or a
            function that takes the list and returns an iterable, which may be endless.

    Raises:
        ConfigError: There is no such strategy, or it comes up with other URLs.
    """
    urls = [part.strip() for part in url.split(";") if part.strip()]
    if strategy in (None, "", "round-robin") or len(urls) < 2:
        return url
    if strategy == "shuffle":
        return ";".join(random.sample(urls, len(urls)))
    if not callable(strategy):
        raise ConfigError(
            f"broker_failover_strategy is {strategy!r}; it has to be 'round-robin', 'shuffle' or a function."
        )
    chosen = list(dict.fromkeys(itertools.islice(strategy(list(urls)), len(urls))))
    if not chosen or not set(chosen) <= set(urls):
        shown = mask("; ".join(chosen)) or "nothing"
        raise ConfigError(f"The function in broker_failover_strategy chose {shown!r} of {mask(url)!r}.")
    return ";".join(chosen)
