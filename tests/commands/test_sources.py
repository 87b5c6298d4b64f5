"""`keylm sources`: every preset and every source type, readable at 80 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.screen import assert_readable

from keylm.commands.sources import show_sources
from keylm.recipe.presets import presets

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_presets_are_readable_at_80_columns() -> None:
    screen = assert_readable(show_sources)
    assert all(name in screen for name in presets())
    for preset in presets().values():
        assert preset.fields["dataset"] in screen


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_readable_at_80_columns(path: Path) -> None:
    screen = assert_readable(lambda: show_sources(path))
    assert "data.sources" in screen
    assert "sft.sources" in screen
