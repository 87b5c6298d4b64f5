"""Whether a score says anything: how far it is above what answers reach that know nothing."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

STANDARD_ERRORS = 2.0
"""A score that is no further above a null answer than this is within noise of it."""


def standard_error(share: float, count: int) -> float:
    """Standard error of a share of `count` independent answers; 0 of nothing."""
    return sqrt(share * (1 - share) / count) if count else 0.0


def within_noise(score: float, error: float, nulls: Mapping[str, float]) -> list[str]:
    """The null answers that a score of this standard error does not clearly beat, the best of them first."""
    near = [name for name, null in nulls.items() if score - null <= STANDARD_ERRORS * error]
    return sorted(near, key=lambda name: -nulls[name])


def remark(near: list[str]) -> str:
    """What is to be said beside a score; nothing where it beats every null answer."""
    return f"within noise of {near[0]}" if near else ""
