"""`torchrun -m keylm run RECIPE`, as on a cluster, with a rank that is killed during training."""

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
from keylm.stages import run_until
from keylm.train.metrics import read_metrics

SETTINGS = [
    "train.optimizer.type=adamw",
    "sft.optimizer.type=adamw",
    "sft.parallel=fsdp",
    "train.checkpoint_minutes=0.00001",
    "export.gguf=[F16]",
]


def losses(run: Run, stage: str) -> list[float]:
    return [row["loss"] for row in read_metrics(run.stage(stage) / "metrics.jsonl") if "loss" in row]


@pytest.mark.slow
def test_all_stages_on_two_ranks_with_one_killed(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path)
    run = open_run(recipe, SETTINGS, tmp_path / "two")
    run.save_recipe()
    with _torchrun(run, "--max-restarts", "2") as process:
        _wait_for_steps(run, 5, process)
        victim = _worker(run, rank=1)
        os.kill(victim, signal.SIGKILL)
        _, screen = process.communicate(timeout=240)
    assert process.returncode == 0, screen
    assert f"exitcode: -9) local_rank: 1 (pid: {victim})" in screen
    assert screen.count("resuming from step") == 1
    assert "Traceback" not in screen, screen
    assert (run.folder / "report.html").exists()
    assert run.metadata("sft")["ranks"] == 2

    alone = open_run(recipe, SETTINGS, tmp_path / "one")
    for stage in ("tokenizer", "prepare", "pretrain", "sft"):
        run_until(alone, stage)
    assert losses(run, "pretrain") == pytest.approx(losses(alone, "pretrain"), rel=1e-5)
    assert losses(run, "sft") == pytest.approx(losses(alone, "sft"), rel=1e-5)


def test_sigterm_to_torchrun_saves(prepared: Run, tiny_run: Run) -> None:
    with _torchrun(tiny_run, command="pretrain") as process:
        _wait_for_steps(tiny_run, 3, process)
        process.terminate()
        _, screen = process.communicate(timeout=60)
    assert "saved: run the same command to resume" in screen
    newest = sorted(tiny_run.stage("pretrain").glob("checkpoints/step-????????"))[-1]
    assert newest.name == f"step-{len(losses(tiny_run, 'pretrain')):08d}"


def _torchrun(run: Run, *options: str, command: str = "run") -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    return subprocess.Popen([*torchrun, "-m", "keylm", command, str(run.folder)], stderr=subprocess.PIPE, text=True)


def _wait_for_steps(run: Run, number: int, process: subprocess.Popen[str]) -> None:
    while len(losses(run, "pretrain")) < number:
        assert process.poll() is None
        time.sleep(0.01)


def _worker(run: Run, rank: int) -> int:
    """Process id of a rank that works on the run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and str(run.folder).encode() in command:
            return int(folder.name)
    raise AssertionError(f"rank {rank} is not running")
