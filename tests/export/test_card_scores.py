"""The tables of scores in the model card."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run

from keylm.common.files import write_json
from keylm.export.model_card import render_model_card
from keylm.run import Run

BITS = {"books": {"bytes": 1000, "documents": 3, "tokens": 250, "pretrain": 1.91, "sft": 1.95, "xz": 2.17}}
SHARES = {
    "instruction_accuracy": 0.25,
    "topic_mentioned": 0.5,
    "instructions": 200,
    "standard_error": 0.0306,
    "not_significantly_above": [],
}
LIKE = {
    "topic_match": 0.9,
    "truncated": 0.04,
    "looping": 0.02,
    "prompt_copy": 0.1,
    "reference_prompt_copy": 0.1,
    "num_words": 20.0,
    "bits_per_byte": 1.2,
}
NULLS = {"baselines": {"constant sentence": {**SHARES, "instruction_accuracy": 0.143}}}
WEAK = {**SHARES, **LIKE, **NULLS, "instruction_accuracy": 0.16, "not_significantly_above": ["constant sentence"]}
INSTRUCTIONS = {
    "pretrain": {**SHARES, **LIKE, **NULLS},
    "sft": {**SHARES, **LIKE, **NULLS, "instruction_accuracy": 0.618, "splits": {"typos": WEAK}},
}
TASKS = {
    "piqa": {
        "documents": 9,
        "scores": {"acc": 0.6127},
        "standard_errors": {"acc": 0.0114},
        "baselines": {"acc": {"chance": 0.5}},
    }
}


@pytest.mark.parametrize(
    ("file", "values", "line"),
    [
        ("bits_per_byte", BITS, "| books | 1,000 | 1.91 | 1.95 | 2.17 |"),
        ("instruction_following", INSTRUCTIONS, "| after SFT | 61.8% | 50.0% |"),
        ("instruction_following", INSTRUCTIONS, "| constant sentence | 14.3% | 50.0% |"),
        (
            "instruction_following",
            INSTRUCTIONS,
            "| new topics and phrasings (200) | 61.8% ± 3.1% | 14.3% | 50.0% | 4.0% | 2.0% | 10.0% |",
        ),
        (
            "instruction_following",
            INSTRUCTIONS,
            "| typos (200) | 16.0% ± 3.1% | 14.3% (not significantly above constant sentence) |",
        ),
        # Of a run without SFT, whose pretraining taught requests.
        ("instruction_following", {"pretrain": INSTRUCTIONS["sft"]}, "| before SFT | 61.8% | 50.0% |"),
        ("lm_eval", TASKS, "| piqa | acc | 61.27% | 1.14% | 50.00% |"),
        ("lm_eval", TASKS, "| PIQA | 61.30% | 61.27% ± 1.14% | not significant |"),
    ],
)
def test_measured_scores_are_in_the_card(tmp_path: Path, file: str, values: dict, line: str) -> None:
    run = tiny_run(tmp_path / "measured")
    write_json(run.begin("eval") / f"{file}.json", values)
    assert line in card(run)


def test_an_unknown_standard_error_is_left_empty(tmp_path: Path) -> None:
    """lm_eval has none for IFEval's scores at the level of instructions."""
    metrics = {"prompt_level_strict_acc": 0.2, "inst_level_strict_acc": 0.3}
    row = {"scores": metrics, "standard_errors": {"prompt_level_strict_acc": 0.017}, "baselines": {}}
    run = tiny_run(tmp_path / "measured")
    write_json(run.begin("eval") / "lm_eval.json", {"ifeval": row})
    text = card(run)
    assert "| ifeval | prompt_level_strict_acc | 20.00% | 1.70% |  |" in text
    assert "| ifeval | inst_level_strict_acc | 30.00% |  |  |" in text
    assert "| IFEval, instructions, strict | 22.42% | 30.00% |" in text


def test_every_training_stage_has_a_row(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "measured")
    write_json(run.begin("eval") / "instruction_following.json", {**INSTRUCTIONS, "dpo": INSTRUCTIONS["sft"]})
    lines = card(run).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("| before SFT |"))
    labels = [line.split(" | ")[0] for line in lines[first : first + 4]]
    assert labels == ["| before SFT", "| after SFT", "| after DPO", "| constant sentence"]
    assert any(line.startswith("Scores after DPO, ") for line in lines)


def test_without_scores_there_is_no_section(tmp_path: Path) -> None:
    assert "## Scores" not in card(tiny_run(tmp_path / "unmeasured"))


def card(run: Run) -> str:
    return render_model_card(run, 1, {}, {"texts": 1, "conversations": 1, "differences": {}})
