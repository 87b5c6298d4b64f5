"""Numbers as people read them."""

from __future__ import annotations

import pytest

from keylm.common.units import duration, short


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.21, "4.2 s"), (200, "3 min 20 s"), (59.96, "60.0 s"), (7504, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("number", "words"), [(812, "812"), (75_251_200, "75.3M"), (18e9, "18B"), (6_000, "6k")])
def test_short_counts(number: int, words: str) -> None:
    assert short(number) == words
