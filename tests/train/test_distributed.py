"""Several ranks: the loss curve of one, checkpoints that any number can resume from, failures with a reason."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from helpers.processes import screen, start, train

from keylm.run import Run, open_run
from keylm.train.metrics import read_metrics

ADAMW = "train.optimizer.type=adamw"
OFTEN = "train.checkpoint_minutes=0.00001"


def rows(run: Run) -> list[dict]:
    return read_metrics(run.stage("pretrain") / "metrics.jsonl")


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]


def copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder)
    return open_run(folder)


@pytest.fixture(scope="module")
def alone(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Runs of one rank, by optimizer, to hold the others against."""
    folder = tmp_path_factory.mktemp("alone")
    runs = {optimizer_type: copy(prepared, folder / optimizer_type) for optimizer_type in ("adamw", "muon")}
    for optimizer_type, run in runs.items():
        train(run, 1, f"train.optimizer.type={optimizer_type}")
    return runs


@pytest.mark.parametrize(
    ("size", "parallel", "optimizer_type"),
    [(2, "ddp", "adamw"), (3, "ddp", "adamw"), (4, "ddp", "muon"), (2, "fsdp", "adamw"), (3, "fsdp", "muon")],
)
def test_loss_curve_equals_that_of_one_rank(
    size: int, parallel: str, optimizer_type: str, alone: dict[str, Run], tiny_run: Run
) -> None:
    """Three ranks share eight sequences unevenly. Micro-batches of one sequence: several to a step on every rank."""
    overrides = [f"train.optimizer.type={optimizer_type}", f"train.parallel={parallel}", "train.micro_batch_tokens=64"]
    train(tiny_run, size, *overrides)
    expected = alone[optimizer_type]
    # Sums differ in their order; Muon iterates in bfloat16 and lets that grow from step to step.
    tolerance = {"adamw": 1e-5, "muon": 3e-3}[optimizer_type]
    assert losses(tiny_run) == pytest.approx(losses(expected), rel=tolerance)
    for row, other in zip(rows(tiny_run), rows(expected), strict=True):
        assert row.get("validation", {}) == pytest.approx(other.get("validation", {}), rel=3 * tolerance + 1e-4)
    assert tiny_run.metadata("pretrain")["ranks"] == size


@pytest.mark.parametrize(("before", "after"), [("ddp 4", "ddp 1"), ("ddp 1", "fsdp 2"), ("fsdp 2", "ddp 1")])
def test_any_number_of_ranks_resumes_from_a_checkpoint(
    before: str, after: str, alone: dict[str, Run], tiny_run: Run
) -> None:
    parallel, size = before.split()
    processes = start(tiny_run, int(size), ADAMW, OFTEN, f"train.parallel={parallel}")
    _wait_for_steps(tiny_run, 10)
    processes[-1].terminate()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {128 + signal.SIGTERM}
    assert len(losses(tiny_run)) < 30
    parallel, size = after.split()
    train(tiny_run, int(size), ADAMW, f"train.parallel={parallel}")
    assert "resuming from step" in screen(tiny_run)
    assert losses(tiny_run) == pytest.approx(losses(alone["adamw"]), rel=1e-5)


def test_dead_rank_stops_the_others_with_a_reason(tiny_run: Run) -> None:
    processes = start(tiny_run, 2, OFTEN)
    _wait_for_steps(tiny_run, 3)
    processes[1].kill()
    processes[0].join(20)
    assert processes[0].exitcode == 1
    assert "rank 0 lost contact with another rank" in screen(tiny_run)


def test_silent_rank_stops_the_others_in_time(tiny_run: Run) -> None:
    processes = start(tiny_run, 2, OFTEN, "train.timeout_seconds=3")
    _wait_for_steps(tiny_run, 3)
    _stop_without_a_word(processes[1].pid)
    processes[0].join(20)
    processes[1].kill()
    assert processes[0].exitcode == 1
    assert "rank 0 lost contact with another rank" in screen(tiny_run)


def test_more_ranks_than_sequences_are_refused(tiny_run: Run) -> None:
    processes = start(tiny_run, 2, "train.batch_tokens=64", "train.micro_batch_tokens=64")
    for process in processes:
        process.join()
    assert processes[0].exitcode == 2
    assert "a step has 1 sequences, too few for 2 ranks" in screen(tiny_run)


def _wait_for_steps(run: Run, number: int) -> None:
    while len(losses(run)) < number:
        time.sleep(0.01)


def _stop_without_a_word(pid: int | None) -> None:
    assert pid
    os.kill(pid, signal.SIGSTOP)
