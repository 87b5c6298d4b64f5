"""The model card, read as the hub reads it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from safetensors.torch import load_file

from keylm.common.files import write_json
from keylm.export.stage import run_export
from keylm.recipe.sources import HubConfig
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


def test_header_is_what_the_hub_knows(exported: Run) -> None:
    card = ModelCard.load(exported.stage("export") / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.language == "en"
    assert card.data.model_name == (exported.recipe.title or exported.recipe.name)


def test_header_says_nothing_that_the_hub_does_not_know(exported: Run) -> None:
    """Whatever huggingface_hub's own class does not know, it keeps as an extra, which the hub shows nowhere."""
    header = metadata_load(exported.stage("export") / "README.md")
    known = inspect.signature(ModelCardData.__init__).parameters
    assert set(header) <= set(known)


def test_nothing_is_left_to_fill_in(exported: Run) -> None:
    text = (exported.stage("export") / "README.md").read_text()
    assert "$" not in text
    count = sum(tensor.numel() for tensor in load_file(exported.weights("sft")).values())
    assert f"of {count:,} parameters" in text
    for source in (*exported.recipe.data.sources, *exported.recipe.sft.sources):
        assert source.name in text or isinstance(source, HubConfig)


def test_both_folders_carry_the_card(exported: Run) -> None:
    folder = exported.stage("export")
    assert (folder / "README.md").read_text() == (folder / "transformers" / "README.md").read_text()


def test_hub_sources_are_named_with_their_licences(tmp_path: Path) -> None:
    sources = [
        {"type": "hub", "name": "wikipedia", "dataset": "wikimedia/wikipedia", "license": "cc-by-sa-4.0", "weight": 3},
        {"type": "installed-docs", "name": "docs", "weight": 1},
    ]
    run = tiny_run(tmp_path / "hub", data={"sources": sources})
    run_export(run)
    card = ModelCard.load(run.stage("export") / "README.md")
    assert card.data.datasets == ["wikimedia/wikipedia"]
    assert "| formal | 75.0% | cc-by-sa-4.0 |" in card.text
    assert "| docs | formal | 25.0% | not stated |" in card.text


@pytest.mark.parametrize(
    ("file", "values", "line"),
    [
        ("bits_per_byte", BITS, "| books | 1,000 | 1.91 | 1.95 | 2.17 |"),
        ("instruction_following", INSTRUCTIONS, "| after tuning | 61.8% | 50.0% |"),
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
        ("lm_eval", TASKS, "| piqa | acc | 61.27% | 1.14% | 50.00% |"),
        ("lm_eval", TASKS, "| PIQA | 61.30% | 61.27% ± 1.14% | not significant |"),
    ],
)
def test_scores_are_shown_where_they_were_measured(tmp_path: Path, file: str, values: dict, line: str) -> None:
    run = tiny_run(tmp_path / "measured")
    write_json(run.begin("eval") / f"{file}.json", values)
    run_export(run)
    assert line in (run.stage("export") / "README.md").read_text()


def test_no_scores_no_section(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "unmeasured")
    run_export(run)
    assert "## Scores" not in (run.stage("export") / "README.md").read_text()
