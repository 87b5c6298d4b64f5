"""`keylm sources`: the data sets that a recipe can name, or a recipe's sources, and what of them is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.padding import Padding
from rich.text import Text

from keylm.common.console import output
from keylm.data.sources.registry import source_type
from keylm.recipe import load_recipe
from keylm.recipe.presets import presets
from keylm.recipe.sources import HubConfig, SourceConfig


def show_sources(path: Path | None = None, overrides: list[str] | None = None) -> None:
    """Print every preset, or the sources of a recipe. No server is asked and no text is read.

    Args:
        path: A recipe or a run folder; the presets by default.
        overrides: Fields of the recipe to change, as `key.subkey=value`.

    Raises:
        UserError: the recipe cannot be read.
    """
    if path is None:
        _print_sources(
            "Presets, for `{type: hub, preset: NAME}` in a recipe",
            [HubConfig.model_validate({"name": name, "preset": name}) for name in presets()],
        )
        return
    recipe = load_recipe(path, overrides)
    _print_sources("data.sources", recipe.data.sources)
    _print_sources("sft.sources", recipe.sft.sources)


def _print_sources(title: str, sources: Sequence[SourceConfig]) -> None:
    """Print one paragraph per source: its name, how much of it is here, and indented below what it is.

    A table would leave the descriptions 30 columns of an 80-column terminal, and cut the ids of data sets.
    """
    output.print(Text(title, style="bold"))
    width = max((len(source.name) for source in sources), default=0)
    for source in sources:
        behavior = source_type(source)
        preset = behavior.preset(source)
        output.print(Text(f"{source.name:<{width}}  {behavior.availability(source)}"))
        properties = [
            f"category {source.category}",
            f"license {source.license}" if source.license else None,
            "gated" if preset and preset.gated else None,
        ]
        lines = [behavior.location(source), preset.about if preset else None, "; ".join(filter(None, properties))]
        output.print(Padding(Text("\n".join(filter(None, lines)), style="dim"), (0, 0, 0, 4)))
