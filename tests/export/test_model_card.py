"""The model card, parsed as the hub parses it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml
from helpers.made_up_run import made_up_run
from helpers.tiny_run import tiny_run
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from safetensors.torch import load_file

from keylm.export.model_card import render_model_card
from keylm.export.published_recipe import published_recipe
from keylm.export.stage import run_export
from keylm.gguf.file import write_gguf
from keylm.gguf.header import read_gguf_metadata
from keylm.recipe import Recipe
from keylm.recipe.sources import HubConfig
from keylm.run import IMPORTED, Run


def test_the_hub_parses_the_header(exported: Run) -> None:
    card = ModelCard.load(exported.stage("export") / "README.md")
    assert card.data.license == (exported.recipe.export.license or None)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.language == (exported.recipe.export.language or None)
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
    paragraphs = ["Pretraining read", "Supervised fine-tuning read", "Preference tuning (DPO) used 64 pairs"]
    positions = [card.index(text) for text in (*paragraphs, "Reinforcement learning (GRPO) used 256 answers")]
    assert positions == sorted(positions)
    assert card.count("| source | category | share | license |") == 2


def test_a_lengthened_training_is_told_from_its_beginning(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run")
    run.finish("tokenizer", {**run.metadata("tokenizer"), "imported": "runs/first"})
    earlier = [{"run": "first", "tokens": 12_345, "seconds": 90}, {"run": "second", "tokens": 1000, "seconds": 6}]
    run.stage(IMPORTED).mkdir()
    run.finish(IMPORTED, {"imported": "runs/second", "earlier": earlier})
    card = render_model_card(run, 1, {}, VERIFICATION)
    assert "trained from scratch" in card
    assert "the run `first`, which had read 12,345 tokens of the same sources in 1.5 minutes" in card
    assert card.index("`first`") < card.index("`second`, which had read 1,000 tokens")
    assert "imported" not in card
    assert ModelCard(card).data.base_model is None


def test_imported_stages_are_not_described(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", data={"sources": []})
    for stage in ("tokenizer", "pretrain"):
        run.begin(stage)
        run.finish(stage, {"imported": "someone/model"})
    card = render_model_card(run, 1, {}, {"texts": 1, "conversations": 1, "differences": {}})
    assert "fine-tuned with KeyLM" in card
    assert "imported from `someone/model`" in card
    assert "Pretraining read" not in card
    assert ModelCard(card).data.license == "other"


SFT = {"sequence_length": 128, "batch_tokens": 256, "micro_batch_tokens": 128}
MACHINE = {"processor": "Abacus 3000", "cores": 2, "system": "Linux"}
VERIFICATION: dict[str, Any] = {"texts": 1, "conversations": 1, "differences": {}}


def test_what_nobody_stated_is_not_on_the_card(tmp_path: Path) -> None:
    card = render_model_card(tiny_run(tmp_path / "run"), 1, {}, VERIFICATION)
    assert "The license of the weights is not stated." in card
    assert not {"license", "language", "model-index"} & set(ModelCard(card).data.to_dict())
    assert "Made by" not in card
    assert "Apache" not in card


def test_what_the_recipe_states_is_on_the_card(tmp_path: Path) -> None:
    export = {
        "license": "mit",
        "author": "Ada",
        "description": "A model of tides.",
        "language": ["en", "de"],
        "temperature": 0.3,
        "repetition_penalty": 1.0,
    }
    run = tiny_run(tmp_path / "run", export=export)
    card = render_model_card(run, 1, {}, VERIFICATION)
    data = ModelCard(card).data
    assert (data.license, data.language) == ("mit", ["en", "de"])
    assert "The license of the weights is mit." in card
    assert "\n\nA model of tides.\n\nMade by Ada.\n" in card
    assert "| default sampling | temperature 0.3, no penalties |" in card
    write_gguf(run.recipe, run.stage("tokenizer"), load_file(run.weights("sft")), "F16", tmp_path / "a.gguf", "mit")
    metadata = read_gguf_metadata(tmp_path / "a.gguf")
    assert metadata["general.author"] == "Ada"
    assert metadata["general.description"] == "A model of tides."
    assert metadata["general.languages"] == ["en", "de"]


def test_every_number_is_that_of_the_run(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", train={"phases": [{"until": 0.25, "weights": {"prose": 0}}, {"until": 1}]})
    run.finish(
        "pretrain", {**run.metadata("pretrain"), "tokens": 3_686_400, "training_seconds": 90, "machine": MACHINE}
    )
    card = render_model_card(run, 1, {}, VERIFICATION)
    assert "Pretraining read 3,686,400 tokens, with muon." in card
    for name, row in run.metadata("pretrain")["mixture"].items():
        assert f"| {name} | formal | {row['realized']:.1%} | {row['tokens']:,} | not stated |" in card
    assert "| 25% | talk 50.0%, gated 50.0% |" in card
    assert "| 100% | prose 33.3%, talk 33.3%, gated 33.3% |" in card
    assert "| pretrain | 1.5 min | 0.75 GiB | Abacus 3000, 2 cores |" in card
    assert "    user: Write about tides in lower case.\n    assistant: the tide comes and goes.\n" in card


def test_the_scores_are_a_model_index(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run")
    results = {
        (result.dataset_name, result.metric_type): result.metric_value
        for result in ModelCard(render_model_card(run, 1, {}, VERIFICATION)).data.eval_results
    }
    assert results["piqa", "acc"] == 0.5413
    assert results["held-out instructions of KeyLM", "instruction_accuracy"] == 0.75
    assert results["held-out text of prose", "bits_per_byte"] == 2.0141


def test_the_recipe_is_published_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    source = {"type": "files", "name": "mine"}
    run = tiny_run(
        tmp_path / "run",
        data={"sources": [{**source, "path": [f"{tmp_path}/texts/*.txt", "~/more"]}]},
        sft={**SFT, "sources": [{"type": "constrained-chat", "name": "c", "from_source": {**source, "path": "/a/c"}}]},
        eval={"data": str(tmp_path / "eval")},
    )
    text = published_recipe(run.recipe)
    assert "/" not in "".join(line for line in text.splitlines() if "path" in line or "data" in line)
    values = yaml.safe_load(text)
    assert values["data"]["sources"][0]["path"] == ["*.txt", "more"]
    assert values["sft"]["sources"][0]["from_source"]["path"] == "c"
    assert Recipe.model_validate(values).model == run.recipe.model


def test_a_base_model_is_not_called_a_chat_model(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", sft={**SFT, "sources": []})
    run.weights("sft").parent.parent.rename(run.stage("pretrain"))
    card = render_model_card(run, 1, {}, VERIFICATION)
    assert "A language model, not yet trained to chat, with 1 parameters" in card
    assert "chat" not in ModelCard(card).data.tags
