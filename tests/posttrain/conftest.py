"""A run with its SFT weights, for the trainings that come after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keylm.run import Run, open_run
from keylm.stages import run_until


@pytest.fixture(scope="module")
def tuned(request: pytest.FixtureRequest, prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A prepared run, pretrained and tuned, whose recipe has the module's `SETTINGS` besides."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(prepared.folder, folder)
    run = open_run(folder, request.module.SETTINGS)
    for stage in ("pretrain", "sft"):
        run_until(run, stage)
    return run


@pytest.fixture
def run(tuned: Run, tmp_path: Path) -> Run:
    """A copy of it that a test may go on with."""
    shutil.copytree(tuned.folder, tmp_path / "run")
    return open_run(tmp_path / "run")
