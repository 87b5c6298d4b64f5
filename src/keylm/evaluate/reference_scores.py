"""Published scores to compare with, from `reference_scores.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import sqrt
from statistics import fmean
from typing import Any

import yaml

from keylm.evaluate.significance import NUM_STANDARD_ERRORS, standard_error


@dataclass(frozen=True)
class ReferenceScore:
    """A published score."""

    title: str
    score: float
    items: int
    """Prompts, instructions or questions behind it."""
    metrics: tuple[tuple[str, str], ...]
    """lm_eval's task and metric of each score that it is the mean of."""


@dataclass(frozen=True)
class ReferenceModel:
    """A published model and its scores."""

    name: str
    source: str
    scores: tuple[ReferenceScore, ...]


@dataclass(frozen=True)
class Comparison:
    """A published score next to our own."""

    reference: ReferenceScore
    score: float
    standard_error: float | None
    """Of `score`; None if it is unknown."""

    @property
    def verdict(self) -> str:
        """`above`, `below` or `not significant`; empty if the standard error is unknown."""
        if self.standard_error is None:
            return ""
        difference = self.score - self.reference.score
        error = sqrt(self.standard_error**2 + standard_error(self.reference.score, self.reference.items) ** 2)
        if abs(difference) <= NUM_STANDARD_ERRORS * error:
            return "not significant"
        return "above" if difference > 0 else "below"


@cache
def reference_model() -> ReferenceModel:
    """The published model that runs are compared with."""
    values = yaml.safe_load(files("keylm.evaluate").joinpath("reference_scores.yaml").read_text(encoding="utf-8"))
    scores = tuple(
        ReferenceScore(
            title=row["title"],
            score=row["score"],
            items=row["items"],
            metrics=tuple((part["task"], part["metric"]) for part in row["metrics"]),
        )
        for row in values["scores"]
    )
    return ReferenceModel(values["name"], values["source"], scores)


def compare_with_reference(tasks: Mapping[str, Mapping[str, Any]]) -> list[Comparison]:
    """The published scores whose tasks were all evaluated, next to our own.

    Args:
        tasks: Scores by task, as returned by `lm_eval_tasks.run_tasks`.
    """
    comparisons = []
    for reference in reference_model().scores:
        if not all(task in tasks for task, _ in reference.metrics):
            continue
        scores = [tasks[task]["scores"].get(metric, 0.0) for task, metric in reference.metrics]
        errors = [tasks[task]["standard_errors"].get(metric) for task, metric in reference.metrics]
        known = [error for error in errors if error is not None]
        # Scores of one task on the same answers are correlated, so the error of their mean is the mean of their errors.
        error = fmean(known) if len(known) == len(errors) else None
        comparisons.append(Comparison(reference, fmean(scores), error))
    return comparisons
