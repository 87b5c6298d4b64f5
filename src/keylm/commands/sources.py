"""The data sets that keylm knows, or the sources of a recipe, and what of them is on this machine."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from keylm.common.console import output
from keylm.data.sources.registry import source_type
from keylm.recipe import load_recipe
from keylm.recipe.presets import presets
from keylm.recipe.sources import HubConfig, SourceConfig


def show_sources(path: Path | None = None, overrides: list[str] | None = None) -> None:
    """Print a table of all entries, or of the sources of the recipe at `path`. Asks no server and reads no data.

    Raises:
        UserError: the recipe cannot be read.
    """
    if path is None:
        sources: list[SourceConfig] = [HubConfig.model_validate({"name": name, "preset": name}) for name in presets()]
        output.print(_table("data sets known by name", sources))
        return
    recipe = load_recipe(path / "recipe.yaml" if path.is_dir() else path, overrides)
    output.print(_table("data.sources", recipe.data.sources))
    output.print(_table("sft.sources", recipe.sft.sources))


def _table(title: str, sources: list[SourceConfig]) -> Table:
    """A row for each source: its name, what it is, how much of it is here."""
    table = Table(title=f"[bold]{title}[/]", title_justify="left", title_style="", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for source in sources:
        behavior = source_type(source)
        about = f"{behavior.location(source)}\n[dim]{_about(source)}[/]"
        table.add_row(source.name, about, behavior.availability(source))
    return table


def _about(source: SourceConfig) -> str:
    preset = source_type(source).preset(source)
    facts = [
        preset.about if preset else "",
        source.category,
        source.license or "",
        "gated" if preset and preset.gated else "",
    ]
    return "; ".join(fact for fact in facts if fact)
