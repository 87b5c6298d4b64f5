"""The table of GGUF files in the card, compared with transformers on the same text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_run import SIZES, TEXTS, tiny_run
from transformers import AutoModelForCausalLM

from keylm.data.prepare.token_store import StoreWriter
from keylm.export.model_card import quantization_section
from keylm.export.stage import run_export
from keylm.gguf.locate import gguf_path
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

FILE_TYPES = ["F16", "Q8_0", "Q4_K_M"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with 100 tokens of held-out text, in one window of its model."""
    sizes = {**SIZES, "hidden_size": 256}
    run = tiny_run(tmp_path_factory.mktemp("held") / "out", model=sizes, export={"gguf": FILE_TYPES})
    source = run.recipe.data.sources[0].name
    writer = StoreWriter(run.stage("prepare") / "pretrain" / source / "validation", 1000, conversations=False)
    tokens = np.array(Tokenizer.load(run.stage("tokenizer")).encode(TEXTS[0])[:100], np.uint16)
    writer.add(1, tokens, np.empty(0, np.bool_), 400)
    writer.finish()
    run.folder.joinpath("quality.json").write_text(json.dumps(run_export(run)["gguf"]))
    return run


def test_the_f32_perplexity_matches_transformers(run: Run) -> None:
    model = AutoModelForCausalLM.from_pretrained(run.stage("export") / "transformers", dtype=torch.float32)
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    ids = torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(TEXTS[0])[:100]]])
    with torch.no_grad():
        expected = math.exp(model(ids, labels=ids).loss.item())
    assert quality(run)["F32"]["perplexity"] == pytest.approx(expected, rel=1e-4)


def test_coarser_types_change_the_perplexity_more(run: Run) -> None:
    perplexity = {file_type: row["perplexity"] for file_type, row in quality(run).items()}
    change = {file_type: abs(perplexity[file_type] / perplexity["F32"] - 1) for file_type in FILE_TYPES}
    assert change["F16"] < change["Q8_0"] < change["Q4_K_M"]


def test_the_card_has_a_row_for_each_file(run: Run) -> None:
    card = (run.stage("export") / "README.md").read_text()
    for file_type in FILE_TYPES:
        row = quality(run)[file_type]
        size = gguf_path(run, file_type).stat().st_size
        assert row["bytes"] == size
        assert f"| `{file_type}` | {size / 1e6:,.1f} MB | {row['bits_per_weight']} | {row['perplexity']:.3f} |" in card


def test_without_held_out_text_there_are_sizes_only(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    rows = run_export(run)["gguf"].values()
    assert all(row.keys() == {"bytes", "bits_per_weight"} for row in rows)
    assert "perplexity" not in (run.stage("export") / "README.md").read_text()
    assert quantization_section({}) == ""


def quality(run: Run) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = json.loads((run.folder / "quality.json").read_text())
    return rows
