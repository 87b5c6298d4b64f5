"""What `prepare` made of each source, as a table: what is trained on and how often, held out, and left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from keylm.common.console import console
from keylm.recipe import Recipe
from keylm.recipe.train import requested_shares


def print_sources(recipe: Recipe, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one table for each stage that reads sources.

    Args:
        recipe: The recipe.
        manifests: By stage and source, the manifest that `prepare` wrote.
    """
    for stage, sources in manifests.items():
        table = Table(stage, "documents", "tokens", "held out", "read", "left out", box=None, header_style="dim")
        for column in table.columns[1:5]:
            column.justify, column.no_wrap = "right", True
        for name, manifest in sources.items():
            if "missing" in manifest:
                table.add_row(name, "", "", "", "", "the whole source: it is not available")
                continue
            train = manifest["train"]
            table.add_row(
                name,
                f"{train['documents']:,}",
                f"{train['tokens']:,}",
                f"{manifest['validation']['documents']:,}",
                f"{epochs(recipe, stage, name, train['tokens']):.1f}x",
                describe_counts(manifest["dropped"]),
            )
        console.print(table)


def epochs(recipe: Recipe, stage: str, name: str, tokens: int) -> float:
    """How often training will read a source of so many tokens: by its share, and no more than `max_epochs`."""
    training, sources = recipe.training(stage), recipe.sources_of(stage)
    share = requested_shares(sources, training.phases)[name]
    limit = next(source.max_epochs for source in sources if source.name == name)
    return min(share * training.tokens / tokens, limit or float("inf"))


def describe_counts(counts: Mapping[str, int]) -> str:
    """Counts by reason in a row, such as `3 duplicate, 1 too short`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
