"""A run with its SFT weights, for the trainings that come after."""

from __future__ import annotations

import shutil
from pathlib import Path

from keylm import stages
from keylm.run import Run, open_run


def tuned_run(prepared: Run, folder: Path, settings: list[str]) -> Run:
    """A copy of a prepared run, pretrained and tuned, whose recipe has `settings` besides."""
    shutil.copytree(prepared.folder, folder)
    run = open_run(folder, settings)
    for stage in ("pretrain", "sft"):
        stages.run_until(run, stage)
    return run
