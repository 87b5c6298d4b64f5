"""`keylm sources`: the data sets that a recipe can name, or a recipe's sources, and what of them is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from rich.padding import Padding
from rich.text import Text

from keylm.common.console import output
from keylm.common.errors import MissingSourceError
from keylm.data.sources import hub_cache
from keylm.data.sources.files import expand
from keylm.data.sources.hub import listing_key
from keylm.recipe import load_recipe
from keylm.recipe.presets import find_preset, presets
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


def _print_sources(title: str, sources: Sequence[SourceConfig]) -> None:
    """Print one paragraph per source: its name, how much of it is here, and indented below what it is.

    A table would leave the descriptions 30 columns of an 80-column terminal, and cut the ids of data sets.
    """
    output.print(Text(title, style="bold"))
    width = max(len(source.name) for source in sources)
    for source in sources:
        output.print(Text(f"{source.name:<{width}}  {source_state(source)}"))
        preset = find_preset(source.preset) if isinstance(source, HubConfig) and source.preset else None
        if isinstance(source, HubConfig):
            origin = " ".join(part for part in (source.dataset, source.config, source.split) if part)
        else:
            origin = f"type {source.type}"
        properties = [
            f"category {source.category}",
            f"license {source.license}" if source.license else None,
            "gated" if preset and preset.gated else None,
        ]
        lines = [origin, preset.about if preset else None, "; ".join(filter(None, properties))]
        output.print(Padding(Text("\n".join(filter(None, lines)), style="dim"), (0, 0, 0, 4)))
