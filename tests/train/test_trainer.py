"""The training loop: golden losses, the same global batch for any number of ranks, Ctrl-C. See test_recovery.py too."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from keylm.model.transformer import load_model
from keylm.run import Run, open_run
from keylm.stages import run_until
from keylm.train.metrics import read_metrics
from keylm.train.stages import make_loader

GOLDEN_LOSSES = [
    5.94487,
    5.85824,
    5.79809,
    5.68836,
    5.5917,
    5.50616,
    5.41111,
    5.37504,
    5.24334,
    5.1406,
    5.09898,
    5.01555,
    5.06915,
    4.94311,
    4.80274,
    4.73833,
    4.72351,
    4.78859,
    4.50888,
    4.47338,
]
"""Losses of the first 20 steps, in nats: a change of the graph, the data, the order or the optimizer shows here."""


def losses(run: Run, stage: str = "pretrain") -> list[float]:
    return [row["loss"] for row in read_metrics(run.stage(stage) / "metrics.jsonl") if "loss" in row]


def test_golden_losses(tiny_run: Run) -> None:
    run_until(tiny_run, "pretrain")
    # The same processor gives every digit. Others sum in other orders, and Muon's bfloat16 lets that grow.
    assert losses(tiny_run)[:20] == pytest.approx(GOLDEN_LOSSES, rel=3e-3)


def test_ctrl_c_saves_and_says_how_to_resume(tiny_run: Run) -> None:
    process = _train(tiny_run)
    _wait_for_a_step(tiny_run, process)
    process.send_signal(signal.SIGINT)
    _, screen = process.communicate()
    assert process.returncode == 130
    heard, stopped = screen.index("stopping, and saving first"), screen.index("saved: run the same command to resume")
    assert heard < stopped
    done = len(losses(tiny_run))
    newest = sorted(tiny_run.stage("pretrain").glob("checkpoints/step-*"))[-1]
    assert newest.name == f"step-{done:08d}"


def test_deterministic_algorithms_change_nothing_on_a_cpu(tiny_run: Run) -> None:
    """In processes of their own, since the setting holds for the whole of one."""
    curves = []
    for setting in ("false", "true"):
        shutil.rmtree(tiny_run.stage("pretrain"), ignore_errors=True)
        command = ["pretrain", str(tiny_run.folder), "--set", f"train.deterministic={setting}"]
        subprocess.run([sys.executable, "-m", "keylm.cli", *command], check=True, capture_output=True)
        curves.append(losses(tiny_run))
    assert curves[0] == curves[1]


def test_sft_lowers_the_loss_of_answers(tiny_run: Run) -> None:
    run_until(tiny_run, "pretrain")
    run_until(tiny_run, "sft")
    before = load_model(tiny_run.recipe.model, tiny_run.weights("pretrain"))
    after = load_model(tiny_run.recipe.model, tiny_run.weights("sft"))
    batch = make_loader(tiny_run, "sft").batch(0)
    tokens, targets, document_ids = (torch.from_numpy(a) for a in (batch.tokens, batch.targets, batch.document_ids))
    with torch.no_grad():
        assert after.loss(tokens, targets, document_ids) < before.loss(tokens, targets, document_ids)


def test_micro_batch_size_changes_no_gradient(tiny_run: Run) -> None:
    one = open_run(tiny_run.folder, ["train.micro_batch_tokens=64"])
    many = open_run(tiny_run.folder, ["train.micro_batch_tokens=512"])
    run_until(many, "pretrain")
    first = losses(many)
    shutil.rmtree(one.stage("pretrain"))
    run_until(one, "pretrain")
    # The sums differ in their order; Muon iterates in bfloat16 and lets that grow from step to step.
    assert losses(one)[:5] == pytest.approx(first[:5], rel=1e-4)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_global_batch(tiny_run: Run, world_size: int) -> None:
    loader = make_loader(tiny_run, "pretrain")
    for step in (0, 7, 29):
        whole = loader.batch(step)
        parts = [loader.batch(step, rank, world_size) for rank in range(world_size)]
        merged = np.empty_like(whole.tokens)
        for rank, part in enumerate(parts):
            merged[rank::world_size] = part.tokens
        assert np.array_equal(merged, whole.tokens)


def test_mixture_matches_the_recipe(tiny_run: Run) -> None:
    run_until(tiny_run, "pretrain")
    for share in tiny_run.metadata("pretrain")["mixture"].values():
        assert share["realized"] == pytest.approx(share["requested"], abs=0.005)


def _train(run: Run) -> subprocess.Popen[str]:
    arguments = ["-m", "keylm.cli", "pretrain", str(run.folder), "--set", "train.checkpoint_minutes=0.00001"]
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)


def _wait_for_a_step(run: Run, process: subprocess.Popen[str]) -> None:
    """Until the process has written a metric of its own, or has ended."""
    path = run.stage("pretrain") / "metrics.jsonl"
    begun = time.time()
    while process.poll() is None and not (path.exists() and path.stat().st_mtime > begun and path.stat().st_size):
        time.sleep(0.005)
