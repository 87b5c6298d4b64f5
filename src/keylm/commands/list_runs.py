"""`keylm ls`: the runs in a folder, with their sizes, scores and times."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from keylm.commands.run_facts import RunFacts, facts_of
from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.common.units import duration, percent, short
from keylm.run import open_run


def show_runs(folder: Path) -> None:
    """Print a table of the runs in a folder, by name.

    Raises:
        UserError: There is no run in it.
    """
    folders = sorted(path.parent for path in folder.glob("*/recipe.yaml"))
    if not folders:
        raise UserError(f"{folder} has no runs: `keylm run RECIPE` makes one")
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("run", "parameters", "tokens", "bits/byte", "followed", "time", "state"):
        table.add_column(name, justify="left" if name in ("run", "state") else "right", header_style="dim")
    for path in folders:
        try:
            table.add_row(*_cells(facts_of(open_run(path))))
        except UserError as error:
            # One run that cannot be read is no reason to hide the others.
            table.add_row(path.name, *[""] * 5, Text(str(error), style="red"))
    output.print(table)


def _cells(facts: RunFacts) -> list[str]:
    score = next(iter(facts.bits_per_byte.values()), None)
    return [
        facts.name,
        short(facts.parameters),
        " + ".join(map(short, facts.tokens.values())),
        "" if score is None else f"{score:.3f}",
        "" if facts.instruction_accuracy is None else percent(facts.instruction_accuracy, 0),
        duration(facts.seconds) if facts.seconds else "",
        facts.state,
    ]
