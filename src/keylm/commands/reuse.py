"""`keylm run --from`: begin a run with what another one made from the same settings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from keylm.common import ranks
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.files import discard_folder, link_or_copy, replace_folder
from keylm.run import Run, open_run
from keylm.stages import Stage, stages_of


def reuse_stages(source: Path, run: Run) -> None:
    """Give a run the finished stages of another one that its own recipe would make again, to the same result.

    Of `prepare`, the sources that did not change are taken if others did. What the run has already is left as it is, so
    the command can be repeated.

    Args:
        source: The other run, which is only read.
        run: The run to begin.

    Raises:
        UserError: `source` is no run, or the same one, or another command is at work in `run`.
    """
    other = replace(open_run(source), recipe=run.recipe)
    if other.folder.resolve() == run.folder.resolve():
        raise UserError(f"--from {source}: a run cannot be made from itself, name another folder with --run")
    if ranks.is_main_process():
        with run.lock():
            _take_stages(other, run)
    ranks.barrier()


def _take_stages(other: Run, run: Run) -> None:
    for stage in stages_of(run):
        if run.stage(stage.name).exists() or not other.is_finished(stage.name):
            continue
        if not other.changed_settings(stage.name):
            take_stage(other, run, stage)
            console.print(f"[green]✓[/] {stage.name:<10} taken from {other.folder}")
        elif stage.plan_remake:
            take_stage(other, run, stage, is_outdated=True)
            console.print(f"  {stage.name:<10} taken from {other.folder}, as far as it is up to date")
        else:
            # Later stages are made from this one. Tokens, for one, mean nothing to another tokenizer.
            return


def take_stage(other: Run, run: Run, stage: Stage, is_outdated: bool = False) -> None:
    """Copy the folder of a stage, without what is out of date in it."""
    # In another folder first, so that a kill leaves no half of the stage in its place.
    partial = Run(run.folder / ".taken", run.recipe)
    discard_folder(partial.folder)
    shutil.copytree(other.stage(stage.name), partial.stage(stage.name), copy_function=link_or_copy)
    if is_outdated:
        (partial.stage(stage.name) / "stage.json").unlink()
        folders, _ = stage.outdated_parts(partial)
        for folder in folders:
            discard_folder(folder)
    replace_folder(partial.stage(stage.name), run.stage(stage.name))
    discard_folder(partial.folder)
