"""Ctrl-C in every stage: one sentence, exit code 130, and the same command goes on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_recipe import write_tiny_recipe

from keylm.run import Run, open_run
from keylm.stages import run_all, stages_of


@pytest.mark.slow
def test_a_run_that_is_interrupted_in_every_stage_ends_as_one_that_is_not(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path, prepare={"tasks": 2, "workers": 2})
    run, calm = (open_run(recipe, folder=tmp_path / name) for name in ("run", "calm"))
    for stage in stages_of(run):
        screen = _interrupt(recipe, run, stage.name)
        assert screen.splitlines()[-1].startswith("keylm: stopped"), screen
        assert "Traceback" not in screen
    run_all(run)
    run_all(calm)
    for name in ("pretrain", "sft"):
        assert run.weights(name).read_bytes() == calm.weights(name).read_bytes()


def _interrupt(recipe: Path, run: Run, stage: str) -> str:
    """What `keylm run` shows if Ctrl-C is pressed when it begins a stage."""
    command = [sys.executable, "-m", "keylm.cli", "run", str(recipe), "--run", str(run.folder)]
    # A terminal sends Ctrl-C to every process of the command.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not (run.stage(stage) / "begun.json").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, screen = process.communicate()
    assert process.returncode == 130, screen
    return screen.rstrip()
