"""`keylm report`: write `results.json` and `report.html`, and print the headlines."""

from __future__ import annotations

from keylm.commands.summary import show_summary
from keylm.common.console import console
from keylm.common.files import write_json
from keylm.evaluate.report import write_report
from keylm.evaluate.results import collect_results
from keylm.run import Run


def write_results(run: Run) -> None:
    """Write `results.json` and `report.html` into the run's folder, and print the headlines."""
    results = collect_results(run)
    write_json(run.folder / "results.json", results)
    write_report(run, results)
    console.print(f"[green]✓[/] {'report':<10} {run.folder / 'report.html'}")
    show_summary(results)
