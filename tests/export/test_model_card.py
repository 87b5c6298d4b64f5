"""The model card, parsed as the hub parses it."""

from __future__ import annotations

import inspect
from pathlib import Path

from helpers.tiny_run import tiny_run
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from safetensors.torch import load_file

from keylm.export.model_card import render_model_card
from keylm.export.stage import run_export
from keylm.recipe.sources import HubConfig
from keylm.run import Run


def test_the_hub_parses_the_header(exported: Run) -> None:
    card = ModelCard.load(exported.stage("export") / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.language == "en"
    assert card.data.model_name == (exported.recipe.title or exported.recipe.name)


def test_the_header_has_only_known_fields(exported: Run) -> None:
    """`ModelCardData` keeps unknown fields without complaint, and the hub ignores them."""
    header = metadata_load(exported.stage("export") / "README.md")
    known = inspect.signature(ModelCardData.__init__).parameters
    assert set(header) <= set(known)


def test_every_placeholder_is_filled(exported: Run) -> None:
    text = (exported.stage("export") / "README.md").read_text()
    assert "$" not in text
    count = sum(tensor.numel() for tensor in load_file(exported.weights("sft")).values())
    assert f"with {count:,} parameters" in text
    for source in (*exported.recipe.data.sources, *exported.recipe.sft.sources):
        assert source.name in text or isinstance(source, HubConfig)


def test_both_folders_have_the_card(exported: Run) -> None:
    folder = exported.stage("export")
    assert (folder / "README.md").read_text() == (folder / "transformers" / "README.md").read_text()


def test_sources_are_listed_with_their_licenses(tmp_path: Path) -> None:
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


def test_every_training_stage_has_a_paragraph(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", dpo={"num_pairs": 64}, grpo={"steps": 2})
    card = render_model_card(run, 1, {}, {"texts": 1, "conversations": 1, "differences": {}})
    paragraphs = ["Pretraining used", "Supervised fine-tuning used", "Preference tuning (DPO) used 64 pairs"]
    positions = [card.index(text) for text in (*paragraphs, "Reinforcement learning (GRPO) used 256 answers")]
    assert positions == sorted(positions)
    assert card.count("| source | category | share | license |") == 2


def test_imported_stages_are_not_described(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", data={"sources": []})
    for stage in ("tokenizer", "pretrain"):
        run.begin(stage)
        run.finish(stage, {"imported": "someone/model"})
    card = render_model_card(run, 1, {}, {"texts": 1, "conversations": 1, "differences": {}})
    assert "fine-tuned with KeyLM" in card
    assert "imported from `someone/model`" in card
    assert "Pretraining used" not in card
    assert ModelCard(card).data.license == "other"
