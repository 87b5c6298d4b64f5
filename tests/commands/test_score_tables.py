"""Tables of scores at 80 columns, the width of a terminal that nobody has enlarged."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from helpers.made_up_run import made_up_scores, made_up_task
from rich.console import Console

from keylm.commands import score_tables
from keylm.evaluate.reference_scores import reference_model
from keylm.instructions.splits import SPLITS

MANY_BASELINES = {"chance": 0.25, "longest choice": 0.243, "choices only, normalized": 0.2733}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(score_tables, "console", console)
    return console


def lines_of(console: Console) -> list[str]:
    """What was printed, in lines of at most 80 characters."""
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert not [line for line in lines if "…" in line]
    return lines


def test_instruction_scores_have_one_line_a_split(narrow: Console) -> None:
    scores = made_up_scores(0.1)
    scores["baselines"]["echo with filler"] = {**scores["baselines"]["echoed prompt"], "instruction_accuracy": 0.431}
    score_tables.print_instruction_scores(dict.fromkeys(SPLITS, scores))
    lines = lines_of(narrow)
    for split in SPLITS:
        accuracy, statistics = (line for line in lines if re.match(rf"{split}  ", line))
        assert re.search(r"53 +10\.0% +± 3\.0% +43\.1% echo with filler +n\.s\.$", accuracy)
        assert re.search(r"7% +88% +6% +3% +20% +15% +17\.5 +1\.23$", statistics)


def test_task_scores_have_one_line_a_metric(narrow: Console) -> None:
    task = made_up_task(0.2691)
    ifeval: dict[str, Any] = {
        **task,
        "scores": {"prompt_level_strict_acc": 0.1275, "inst_level_strict_acc": 1.0},
        "standard_errors": {"prompt_level_strict_acc": 0.0143},
        "baselines": {"prompt_level_strict_acc": MANY_BASELINES},
        "not_significantly_above": {"prompt_level_strict_acc": ["choices only, normalized"]},
        "by_instruction": {
            "detectable_format:number_highlighted_sections": {
                "followed": 9,
                "total": 1200,
                "baselines": {"echoed prompt": 600, "echo with filler": 300},
            }
        },
    }
    score_tables.print_task_scores({"mmlu_high_school_government_and_politics": task, "ifeval": ifeval})
    lines = lines_of(narrow)
    assert "mmlu_high_school_government_and_politics (1,838 documents)" in lines
    assert [re.split(r" {2,}| (?=±)", line) for line in lines if re.match(r"acc|prompt_level|inst_level", line)] == [
        ["acc", "26.91%", "± 1.16%", "26.2% shortest choice"],
        ["acc_norm", "27.91%", "± 1.16%", "26.2% shortest choice"],
        ["prompt_level_strict_acc", "12.75%", "± 1.43%", "27.3% choices only, normalized", "n.s."],
        ["inst_level_strict_acc", "100.00%"],
    ]
    assert [line.split() for line in lines if line.startswith("detectable_format")] == [
        ["detectable_format:number_highlighted_sections", "1,200", "1%", "50%"]
    ]


def test_published_scores_have_one_line_each(narrow: Console) -> None:
    everything = {**made_up_task(0.2), "scores": {}, "standard_errors": {}}
    for reference in reference_model().scores:
        everything["scores"] |= {metric: 0.2 for _, metric in reference.metrics}
        everything["standard_errors"] |= {metric: 0.0116 for _, metric in reference.metrics}
    tasks = {task: everything for reference in reference_model().scores for task, _ in reference.metrics}
    score_tables.print_reference_scores(tasks)
    titles = [re.split(r" {2,}", line)[0] for line in lines_of(narrow)[-len(reference_model().scores) :]]
    assert titles == [reference.title for reference in reference_model().scores]


def test_an_unknown_standard_error_is_left_empty(narrow: Console) -> None:
    metrics = [f"{level}_level_{mode}_acc" for level in ("prompt", "inst") for mode in ("strict", "loose")]
    errors = {metric: 0.0143 for metric in metrics if metric.startswith("prompt")}
    task = {**made_up_task(0.5), "scores": dict.fromkeys(metrics, 0.2), "standard_errors": errors}
    score_tables.print_reference_scores({"ifeval": task, "piqa": made_up_task(0.5413)})
    rows = {line[:28].strip(): line[28:].split() for line in lines_of(narrow)}
    assert rows["IFEval, instructions, strict"] == ["22.42%", "20.00%"]
    assert rows["IFEval, mean of four"] == ["17.85%", "20.00%"]
    assert rows["IFEval, prompts, strict"] == ["12.75%", "20.00%", "±", "1.43%", "above"]
    assert rows["PIQA"] == ["61.30%", "54.13%", "±", "1.16%", "below"]
