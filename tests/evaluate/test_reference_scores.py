"""The published card's lines, beside made-up scores."""

import pytest

from keylm.evaluate import reference_scores
from keylm.evaluate.reference_scores import REFERENCE_SCORES, Row


def task(**scores: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {
        "scores": {metric: score for metric, (score, _) in scores.items()},
        "standard_errors": {metric: error for metric, (_, error) in scores.items()},
    }


def test_only_what_was_measured_stands_beside_the_card() -> None:
    assert reference_scores.beside({}) == []
    rows = reference_scores.beside({"piqa": task(acc=(0.62, 0.011)), "arc_easy": task(acc_norm=(0.4, 0.01))})
    assert [row.claim.title for row in rows] == ["PIQA"]
    assert (rows[0].score, rows[0].error) == (0.62, 0.011)


def test_means_are_of_all_their_parts() -> None:
    rows = reference_scores.beside(
        {
            "arc_easy": task(acc=(0.9, 0.1), acc_norm=(0.4, 0.02)),
            "arc_challenge": task(acc=(0.9, 0.1), acc_norm=(0.2, 0.04)),
            "ifeval": task(
                prompt_level_strict_acc=(0.1, 0.01),
                inst_level_strict_acc=(0.2, 0.01),
                prompt_level_loose_acc=(0.3, 0.01),
                inst_level_loose_acc=(0.6, 0.01),
            ),
        }
    )
    means = {row.claim.title: (row.score, row.error) for row in rows}
    assert means["ARC, mean"] == pytest.approx((0.3, 0.03))
    assert means["IFEval, mean of four"] == pytest.approx((0.3, 0.01))


@pytest.mark.parametrize(
    ("score", "error", "remark"),
    [(0.25, 0.0, "within noise"), (0.30, 0.01, "above"), (0.20, 0.0, "below"), (0.30, 0.05, "within noise")],
)
def test_a_difference_is_judged_by_both_errors(score: float, error: float, remark: str) -> None:
    """OpenBookQA's 500 questions give the card's own 25.0% a standard error of 1.9 points."""
    openbookqa = next(claim for claim in REFERENCE_SCORES if claim.title == "OpenBookQA")
    assert Row(openbookqa, score, error).remark == remark
