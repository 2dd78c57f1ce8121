"""Kills buyers at random moments, and counts what became of their orders: `make outbox`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from buyers import Market

LONGEST_LIFE_SECONDS = 0.1


def main() -> int:
    """Run it; return 1 when an order was lost, or something was sent that was not ordered."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=500)
    options.add_argument("--seed", type=int, default=6)
    asked = options.parse_args()
    dice = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        market = Market(Path(folder))
        market.kill([dice.uniform(0.0, LONGEST_LIFE_SECONDS) for _ in range(asked.kills)])
        stayed = market.outbox()
        said = [market.sweep()]
        while market.outbox() and len(said) < asked.kills:
            said.append(market.sweep())
        (first, again), orders = market.sent(), market.orders()
    sent = set(first) | set(again)
    twice = sum(count > 1 for count in (*first.values(), *again.values()))
    print(f"{asked.kills} killed, {len(orders)} orders, {stayed} in the outbox then")
    print(
        f"{len(orders - sent)} lost, {len(sent - orders)} sent but not ordered, {twice} sent twice unmarked"
    )
    print(f"{len(set(first) & set(again))} sent again in doubt, and marked so")
    return int(bool(orders - sent or sent - orders or twice))


if __name__ == "__main__":
    sys.exit(main())
