"""Standard errors, and whether a score is significantly above its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from random import Random
from statistics import stdev
from typing import Any

NUM_STANDARD_ERRORS = 2.0
"""A score is significantly above another one if it is more than this many standard errors higher."""
# With so many, the standard error is itself known to about 2%.
_NUM_RESAMPLES = 1000


def standard_error(accuracy: float, count: int) -> float:
    """Standard error of an accuracy over `count` independent items; 0.0 if there are none."""
    return sqrt(accuracy * (1 - accuracy) / count) if count else 0.0


def bootstrap_standard_error(metric: Callable[[list[Any]], float], items: Sequence[Any]) -> float | None:
    """Standard error of any metric, by the bootstrap over its items (Efron 1979).

    For metrics without a closed form, such as IFEval's accuracy over instructions, which come several to a prompt and
    are therefore not independent. Items are resampled with a fixed seed.

    Args:
        metric: Aggregates a list of items to a score.
        items: What the metric is computed from, one per prompt.

    Returns:
        The standard error, or None if there are fewer than two items.
    """
    if len(items) < 2:
        return None
    rng = Random(0)
    return stdev(metric(rng.choices(items, k=len(items))) for _ in range(_NUM_RESAMPLES))


def not_significantly_above(score: float, error: float | None, baselines: Mapping[str, float]) -> list[str]:
    """Names of the baselines that a score does not exceed by `NUM_STANDARD_ERRORS`, the best baseline first.

    Without a standard error (None) only baselines at or above the score are named.
    """
    margin = NUM_STANDARD_ERRORS * (error or 0.0)
    names = [name for name, baseline in baselines.items() if score - baseline <= margin]
    return sorted(names, key=lambda name: -baselines[name])


def significance_note(baselines: Sequence[str]) -> str:
    """A note on the result of `not_significantly_above`; empty if the score is above every baseline."""
    return f"not significantly above {baselines[0]}" if baselines else ""
