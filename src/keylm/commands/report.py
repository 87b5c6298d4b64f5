"""`keylm report`: write `results.json` and `report.html`, and print the headlines."""

from __future__ import annotations

from keylm.commands.summary import show_summary
from keylm.common.console import console
from keylm.evaluate.report import write_report
from keylm.evaluate.results import build_results
from keylm.run import Run


def write_results(run: Run) -> None:
    """Write `results.json` and `report.html` from what the stages recorded, and print the headlines."""
    results = build_results(run)
    write_report(run)
    console.print(f"[green]✓[/] {'report':<10} {run.folder / 'report.html'}")
    show_summary(results)
