"""`keylm report`: print headlines and a few answers, and write `results.json` and `report.html`."""

from __future__ import annotations

from pathlib import Path

from keylm.commands.held_out_answers import show_held_out_answers
from keylm.commands.summary import show_summary
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.files import write_json
from keylm.evaluate.report import write_report
from keylm.evaluate.results import collect_results
from keylm.run import Run


def write_results(run: Run, folder: Path | None = None) -> None:
    """Print headlines and a few answers, and write `results.json` and `report.html` into `folder` (default: the run's).

    Raises:
        UserError: the folder cannot be written.
    """
    folder = folder or run.folder
    results = collect_results(run)
    # First, because they need no file.
    show_summary(results, run.folder)
    show_held_out_answers(run)
    try:
        write_json(folder / "results.json", results)
        write_report(run, results, folder)
    except OSError as error:
        raise UserError(
            f"cannot write the report to {folder} ({error.strerror or error}): name another folder with "
            f"`keylm report {run.folder} --output FOLDER`"
        ) from error
    console.print(f"[green]✓[/] {'report':<10} {folder / 'report.html'}")
