"""The table of sources: what it shows, and how often training reads each."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_recipe import write_tiny_recipe

from keylm.common.console import console
from keylm.data.prepare.source_table import epochs, print_sources
from keylm.recipe import load_recipe
from keylm.run import Run
from keylm.train.stages import make_loader


def test_the_table_fits_80_columns_and_names_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 80)
    recipe = load_recipe(write_tiny_recipe(tmp_path))
    prose = {
        "train": {"documents": 1_234_567, "tokens": 987_654_321},
        "validation": {"documents": 12_345},
        "dropped": {"duplicate": 12_345, "too short": 3, "README or license beside the data": 1},
    }
    with console.capture() as captured:
        print_sources(recipe, {"pretrain": {"prose": prose, "talk": {"missing": "no network"}}})
    screen = captured.get()
    assert max(map(len, screen.splitlines())) <= 80
    assert "\u2026" not in screen
    words = " ".join(screen.split())
    for word in ("1,234,567", "987,654,321", "12,345", "duplicate", "short", "README", "not available"):
        assert word in words


def test_epochs_are_those_of_the_loader(prepared: Run) -> None:
    for stage in ("pretrain", "sft"):
        loader = make_loader(prepared, stage)
        for name, drawn in loader.mixture.tokens().items():
            tokens = prepared.metadata("prepare")[stage][name]["train"]["tokens"]
            assert epochs(prepared.recipe, stage, name, tokens) == pytest.approx(drawn / tokens, rel=0.1)


def test_a_limit_of_epochs_is_kept(tmp_path: Path) -> None:
    recipe = load_recipe(write_tiny_recipe(tmp_path), ["data.sources.prose.max_epochs=2"])
    assert epochs(recipe, "pretrain", "prose", 100) == 2
