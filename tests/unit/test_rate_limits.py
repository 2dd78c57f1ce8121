"""Rate limits: how they are written, and when there is a token."""

from __future__ import annotations

import pytest

from celeriac.limits import TokenBucket, tokens_per_second


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (None, 0),
        (0, 0),
        ("", 0),
        (5, 5),
        ("10", 10),
        ("10/s", 10),
        ("30/m", 0.5),
        ("1800/h", 0.5),
        ("0.5/s", 0.5),
    ],
)
def test_how_a_limit_is_written(text: str | float | None, rate: float) -> None:
    assert tokens_per_second(text) == pytest.approx(rate)


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="often"):
        tokens_per_second("often")
    with pytest.raises(KeyError):
        tokens_per_second("10/d")


def test_the_first_may_begin_at_once_and_there_is_no_burst() -> None:
    bucket = TokenBucket(0.5, 100.0)

    assert bucket.take(100.0)
    assert not bucket.take(101.9)
    assert bucket.wait_seconds(101.5) == pytest.approx(0.5)
    assert bucket.take(110.0)
    assert not bucket.take(111.0)
