"""The data sets that keylm knows, or the sources of a recipe, and what of them is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from rich.table import Table

from keylm import recipe as recipes
from keylm.data import files, hub, shards
from keylm.data.registry import ENTRIES, Entry
from keylm.errors import MissingSourceError
from keylm.recipe import Drills, Files, Hub, InstalledDocs, Instructions, Source, Typos, Verified
from keylm.screen import output


def show(path: Path | None = None, overrides: list[str] | None = None) -> None:
    """Print a table of all entries, or of the sources of the recipe at `path`. Asks no server and reads no data.

    Raises:
        UserError: the recipe cannot be read.
    """
    if path is None:
        sources: list[Source] = [Hub.model_validate({"name": name, "entry": name}) for name in ENTRIES]
        output.print(_table("data sets known by name", sources))
        return
    recipe = recipes.load(path / "recipe.yaml" if path.is_dir() else path, overrides)
    output.print(_table("data.sources", recipe.data.sources))
    output.print(_table("sft.sources", recipe.sft.sources))


def state(source: Source) -> str:
    """How much of a source is on this machine, as far as the cache says."""
    match source:
        case Hub():
            return _cached(source)
        case Files():
            return _found(source)
        case InstalledDocs():
            return "installed"
        case Instructions() | Drills() | Typos():
            return "made here"
        case Verified():
            return state(source.of)
        case _:
            assert_never(source)


def _cached(source: Hub) -> str:
    listing = shards.remembered(hub.listing_key(source))
    local = [shard for shard in listing.shards if listing.local(shard)] if listing else []
    if not listing or not local:
        return "not downloaded"
    size = f"{sum(shard.size for shard in local) / 1e9:,.2f} GB"
    if len(local) == len(listing.shards):
        return f"cached, {size}"
    return f"partly: {len(local)} of {len(listing.shards)} files, {size}"


def _found(source: Files) -> str:
    patterns = [source.path] if isinstance(source.path, str) else source.path
    try:
        return f"{sum(len(files.expand(pattern)) for pattern in patterns)} files"
    except MissingSourceError:
        return "missing"


def _table(title: str, sources: list[Source]) -> Table:
    """A row for each source: its name, what it is, how much of it is here."""
    table = Table(title=f"[bold]{title}[/]", title_justify="left", title_style="", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    for source in sources:
        table.add_row(source.name, f"{_place(source)}\n[dim]{_about(source)}[/]", state(source))
    return table


def _place(source: Source) -> str:
    if not isinstance(source, Hub):
        return source.kind
    return " ".join(part for part in (source.dataset, source.config, source.split) if part)


def _about(source: Source) -> str:
    entry = _entry(source)
    facts = [
        entry.about if entry else "",
        source.category,
        source.license or "",
        "gated" if entry and entry.gated else "",
    ]
    return "; ".join(fact for fact in facts if fact)


def _entry(source: Source) -> Entry | None:
    return ENTRIES[source.entry] if isinstance(source, Hub) and source.entry else None
