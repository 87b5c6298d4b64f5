"""`keylm compare`: runs beside one another, their curves on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich import table as terminal

from keylm.commands.run_facts import RunFacts, facts_of
from keylm.common.console import console, output
from keylm.common.errors import UserError
from keylm.common.units import duration, percent
from keylm.evaluate import plots
from keylm.evaluate.pages import Table, write_page
from keylm.recipe.fingerprint import stage_inputs
from keylm.run import Run
from keylm.stages import TRAINING_STAGES
from keylm.train.metrics import read_metrics


def compare_runs(runs: Sequence[Run], path: Path) -> None:
    """Print what runs achieved beside one another, and write a page with their curves and where their recipes differ.

    Args:
        runs: Two runs or more.
        path: The page to write.

    Raises:
        UserError: There are fewer than two runs, or more than there are colors; or the page cannot be written.
    """
    if not 2 <= len(runs) <= len(plots.COLORS):
        raise UserError(f"name two to {len(plots.COLORS)} runs to compare, such as `keylm compare runs/a runs/b`")
    names = _names(runs)
    facts = _facts_table(names, [facts_of(run) for run in runs])
    shown = terminal.Table(*facts.columns, box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in facts.rows:
        shown.add_row(*row)
    output.print(shown)
    try:
        write_page(
            "comparison.html.jinja",
            path,
            names=names,
            colors=plots.COLORS,
            facts=facts,
            curves={
                stage.title[0].upper() + stage.title[1:]: _curves(names, runs, stage.name) for stage in TRAINING_STAGES
            },
            differences=_differences_table(names, runs),
        )
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}): choose another with --output") from error
    console.print(f"[green]✓[/] curves and recipes: {path}")


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or where two are the same, their paths."""
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _facts_table(names: Sequence[str], facts: Sequence[RunFacts]) -> Table:
    def row(label: str, cell: Callable[[RunFacts], str]) -> list[str]:
        return [label, *map(cell, facts)]

    def scores(label: str, of: Callable[[RunFacts], Mapping[str, float]]) -> list[list[str]]:
        sources = dict.fromkeys(source for part in facts for source in of(part))
        return [
            row(f"{label}, {source}", lambda part, source=source: _number(of(part).get(source)))  # type: ignore[misc]
            for source in sources
        ]

    rows = [
        row("state", lambda part: part.state),
        row("parameters", lambda part: f"{part.parameters:,}"),
        row("tokens of pretraining", lambda part: f"{part.tokens.get('pretrain', 0):,}"),
        row("tokens of SFT", lambda part: f"{part.tokens.get('sft', 0):,}"),
        *scores("bits per byte", lambda part: part.bits_per_byte),
        *scores("SFT answers, bits per byte", lambda part: part.answers),
        row(
            "instructions followed",
            lambda part: "" if part.instruction_accuracy is None else percent(part.instruction_accuracy),
        ),
        row("time, all stages", lambda part: duration(part.seconds) if part.seconds else ""),
    ]
    return Table(["", *names], [cells for cells in rows if any(cells[1:])], "facts")


def _curves(names: Sequence[str], runs: Sequence[Run], stage: str) -> list[Markup]:
    """Plots of a training stage, with a line for each run that has the numbers; of sources, those of several runs."""
    metrics = [read_metrics(run.stage(stage) / "metrics.jsonl") for run in runs]
    drawn = []
    for key, title in plots.STEP_CURVES.items():
        series = {name: _points(rows, key) for name, rows in zip(names, metrics, strict=True)}
        if any(series.values()):
            drawn.append(plots.curves(title, series))
    validated = Counter(name for rows in metrics for name in _validated(rows))
    for source in (name for name, num_runs in validated.items() if num_runs > 1):
        series = {
            name: [(row["tokens"], row["validation"][source]) for row in rows if source in row.get("validation", {})]
            for name, rows in zip(names, metrics, strict=True)
        }
        drawn.append(plots.curves(f"bits per byte, {source}", series, marker="o"))
    return drawn


def _validated(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The sources whose held-out text was scored."""
    return list(next((row["validation"] for row in rows if "validation" in row), {}))


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(row["tokens"], row[key]) for row in rows if key in row]


def _differences_table(names: Sequence[str], runs: Sequence[Run]) -> Table:
    """The fields of the recipes that differ and that what the stages make depends on."""
    settings = [stage_inputs(run.recipe)["export"] for run in runs]
    keys = dict.fromkeys(key for part in settings for key in part)
    rows = [[key, *(str(part.get(key, "")) for part in settings)] for key in keys]
    return Table(["field", *names], [row for row in rows if len(set(row[1:])) > 1], "Fields that differ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
