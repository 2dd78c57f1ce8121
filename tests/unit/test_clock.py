"""Time as text."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest

from celeriac.clock import TextClock


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"])
def test_the_text_is_the_time_of_the_zone(name: str) -> None:
    zone = zoneinfo.ZoneInfo(name)
    clock = TextClock()

    before = datetime.datetime.now(zone)
    texts = [clock.now(zone) for _ in range(100)]
    after = datetime.datetime.now(zone)

    moments = [datetime.datetime.fromisoformat(text) for text in texts]
    assert moments == sorted(moments)
    assert before <= moments[0] <= moments[-1] <= after
    assert {len(text) for text in texts} == {len("2030-01-01T00:00:00.000000+00:00")}
    assert moments[0].utcoffset() == before.utcoffset()


def test_zones_may_take_turns() -> None:
    clock = TextClock()
    west, east = zoneinfo.ZoneInfo("America/New_York"), zoneinfo.ZoneInfo("Asia/Kolkata")

    texts = [clock.now(zone) for zone in (west, east, west, east)]

    moments = [datetime.datetime.fromisoformat(text) for text in texts]
    assert moments == sorted(moments)
    assert [text[-6:] for text in texts[1::2]] == ["+05:30", "+05:30"]
