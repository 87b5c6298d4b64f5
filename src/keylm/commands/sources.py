"""The data sets that keylm knows, or the sources of a recipe, and what of them is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from rich.table import Table

from keylm.common.console import output
from keylm.common.errors import MissingSourceError
from keylm.data.sources import hub_cache
from keylm.data.sources.files import expand
from keylm.data.sources.hub import listing_key
from keylm.recipe import load_recipe
from keylm.recipe.presets import Preset, find_preset, presets
from keylm.recipe.sources import (
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    SourceConfig,
    TyposConfig,
)


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


def source_state(source: SourceConfig) -> str:
    """How much of a source is on this machine, as far as the cache says."""
    match source:
        case HubConfig():
            return _cached(source)
        case FilesConfig():
            return _found(source)
        case InstalledDocsConfig():
            return "installed"
        case InstructionsConfig() | RepetitionConfig() | TyposConfig():
            return "made here"
        case ConstrainedChatConfig():
            return source_state(source.from_source)
        case _:
            assert_never(source)


def _cached(source: HubConfig) -> str:
    listing = hub_cache.load_listing(listing_key(source))
    local = [shard for shard in listing.shards if listing.local(shard)] if listing else []
    if not listing or not local:
        return "not downloaded"
    size = f"{sum(shard.size for shard in local) / 1e9:,.2f} GB"
    if len(local) == len(listing.shards):
        return f"cached, {size}"
    return f"partly: {len(local)} of {len(listing.shards)} files, {size}"


def _found(source: FilesConfig) -> str:
    patterns = [source.path] if isinstance(source.path, str) else source.path
    try:
        return f"{sum(len(expand(pattern)) for pattern in patterns)} files"
    except MissingSourceError:
        return "missing"


def _table(title: str, sources: list[SourceConfig]) -> Table:
    """A row for each source: its name, what it is, how much of it is here."""
    table = Table(title=f"[bold]{title}[/]", title_justify="left", title_style="", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for source in sources:
        table.add_row(source.name, f"{_place(source)}\n[dim]{_about(source)}[/]", source_state(source))
    return table


def _place(source: SourceConfig) -> str:
    if not isinstance(source, HubConfig):
        return str(source.type)
    return " ".join(part for part in (source.dataset, source.config, source.split) if part)


def _about(source: SourceConfig) -> str:
    entry = _entry(source)
    facts = [
        entry.about if entry else "",
        source.category,
        source.license or "",
        "gated" if entry and entry.gated else "",
    ]
    return "; ".join(fact for fact in facts if fact)


def _entry(source: SourceConfig) -> Preset | None:
    return find_preset(source.preset) if isinstance(source, HubConfig) and source.preset else None
