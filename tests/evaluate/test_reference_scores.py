"""Published scores next to made-up ones."""

import pytest

from keylm.evaluate.reference_scores import Comparison, compare_with_reference, reference_model


def task(**scores: tuple[float, float]) -> dict[str, dict[str, float]]:
    return {
        "scores": {metric: score for metric, (score, _) in scores.items()},
        "standard_errors": {metric: error for metric, (_, error) in scores.items()},
    }


def test_only_evaluated_tasks_are_compared() -> None:
    assert compare_with_reference({}) == []
    rows = compare_with_reference({"piqa": task(acc=(0.62, 0.011)), "arc_easy": task(acc_norm=(0.4, 0.01))})
    assert [row.reference.title for row in rows] == ["PIQA"]
    assert (rows[0].score, rows[0].standard_error) == (0.62, 0.011)


def test_a_mean_is_of_all_its_metrics() -> None:
    rows = compare_with_reference(
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
    means = {row.reference.title: (row.score, row.standard_error) for row in rows}
    assert means["ARC, mean"] == pytest.approx((0.3, 0.03))
    assert means["IFEval, mean of four"] == pytest.approx((0.3, 0.01))


@pytest.mark.parametrize(
    ("score", "error", "verdict"),
    [(0.25, 0.0, "not significant"), (0.30, 0.01, "above"), (0.20, 0.0, "below"), (0.30, 0.05, "not significant")],
)
def test_a_difference_is_judged_by_both_errors(score: float, error: float, verdict: str) -> None:
    """OpenBookQA's 500 questions give the published 25.0% a standard error of 1.9 points."""
    openbookqa = next(row for row in reference_model().scores if row.title == "OpenBookQA")
    assert Comparison(openbookqa, score, error).verdict == verdict


def test_without_a_standard_error_there_is_no_verdict() -> None:
    (row,) = compare_with_reference({"piqa": {"scores": {"acc": 0.62}, "standard_errors": {}}})
    assert (row.score, row.standard_error, row.verdict) == (0.62, None, "")


def test_every_score_states_where_it_comes_from() -> None:
    model = reference_model()
    assert model.name
    assert model.source
    assert all(0 < row.score < 1 and row.items and row.metrics for row in model.scores)
