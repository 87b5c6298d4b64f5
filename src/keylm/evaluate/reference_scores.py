"""The table of the published card, with a column for whatever model was measured.

The numbers are those that the card of KeyLM-75M-Instruct states, by lm_eval: IFEval through the chat template, the
others zero-shot, length-normalised for ARC and HellaSwag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

from keylm.evaluate.significance import STANDARD_ERRORS, standard_error

NAME = "KeyLM-75M-Instruct"
"""Whose numbers these are."""

_IFEVAL = ("prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc", "inst_level_loose_acc")


@dataclass(frozen=True)
class ReferenceScore:
    """One line of the card: a score, and what it is the mean of."""

    title: str
    share: float
    items: int
    """Prompts, instructions or questions behind it."""
    parts: tuple[tuple[str, str], ...]
    """lm_eval's task and metric of each score that it is the mean of."""


REFERENCE_SCORES = (
    ReferenceScore("IFEval, instructions, strict", 0.2242, 834, (("ifeval", "inst_level_strict_acc"),)),
    ReferenceScore("IFEval, prompts, strict", 0.1275, 541, (("ifeval", "prompt_level_strict_acc"),)),
    ReferenceScore("IFEval, mean of four", 0.1785, 541, tuple(("ifeval", metric) for metric in _IFEVAL)),
    ReferenceScore("MMLU", 0.240, 14_042, (("mmlu", "acc"),)),
    ReferenceScore("ARC, mean", 0.308, 3_548, (("arc_easy", "acc_norm"), ("arc_challenge", "acc_norm"))),
    ReferenceScore("HellaSwag", 0.310, 10_042, (("hellaswag", "acc_norm"),)),
    ReferenceScore("PIQA", 0.613, 1_838, (("piqa", "acc"),)),
    ReferenceScore("WinoGrande", 0.483, 1_267, (("winogrande", "acc"),)),
    ReferenceScore("OpenBookQA", 0.250, 500, (("openbookqa", "acc"),)),
)


@dataclass(frozen=True)
class Row:
    """A line of the card beside what was measured."""

    claim: ReferenceScore
    score: float
    error: float
    """Standard error of `score`."""

    @property
    def remark(self) -> str:
        """Whether the two differ by more than chance explains."""
        error = sqrt(self.error**2 + standard_error(self.claim.share, self.claim.items) ** 2)
        difference = self.score - self.claim.share
        if abs(difference) <= STANDARD_ERRORS * error:
            return "within noise"
        return "above" if difference > 0 else "below"


def beside(tasks: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The lines of the card of which everything was measured; `tasks` is what `lm_tasks.run_tasks` found.

    The error of a mean is the mean of the errors: scores of one task on the same answers are not independent.
    """
    known = [claim for claim in REFERENCE_SCORES if all(task in tasks for task, _ in claim.parts)]
    return [Row(claim, _mean(tasks, claim, "scores"), _mean(tasks, claim, "standard_errors")) for claim in known]


def _mean(tasks: Mapping[str, Mapping[str, Any]], claim: ReferenceScore, key: str) -> float:
    return fmean(tasks[task][key].get(metric, 0.0) for task, metric in claim.parts)
