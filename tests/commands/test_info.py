"""`keylm info`: the published numbers, readable at 80 columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run
from helpers.screen import assert_readable, printed

from keylm.commands import info
from keylm.common.units import gib
from keylm.evaluate.results import collect_results
from keylm.recipe import load_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_costs_are_readable_at_80_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "seconds_per_token", lambda model, training: 1e-3)
    monkeypatch.setattr(info, "resident_memory_bytes", lambda: 2**28)
    screen = assert_readable(lambda: info.show_info(path, ["dpo={}", "grpo={}"]))
    assert "dpo: pairs" in screen
    assert "grpo: answers" in screen
    if path.stem == "keylm-75m":
        assert "75,251,200" in screen
        assert "18,000,000,000" in screen


def test_a_run_is_shown_with_the_memory_that_its_report_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "seconds_per_token", lambda model, training: 1e-3)
    run = made_up_run(tmp_path)
    screen = printed(lambda: info.show_info(run.folder), 80)
    for stage, costs in collect_results(run)["stages"].items():
        assert re.search(rf"{stage} +{re.escape(gib(costs['peak_memory_bytes']))}", screen)


def test_activations_grow_with_the_micro_batch() -> None:
    recipe = load_recipe(RECIPES[0])
    half = recipe.train.model_copy(update={"micro_batch_tokens": recipe.train.micro_batch_tokens // 2})
    assert info.activation_bytes(recipe.model, half) * 2 == info.activation_bytes(recipe.model, recipe.train)
