"""Checkpoints: which are kept, what they contain, and the thread that writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from keylm.common.errors import KeyLMError
from keylm.train.checkpoint import AsyncCheckpointer, Checkpoint, latest_step, load_checkpoint, save_checkpoint
from keylm.train.distributed import SINGLE_PROCESS, full_cpu_state_dict


def make(step: int, value: float = 0.0) -> Checkpoint:
    tensors = {"weight": torch.full((4, 3), value)}
    return Checkpoint(step, tensors, {"weight/exp_avg": torch.ones(4, 3)}, "data", 1.5, skipped=2)


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(7, 0.25), keep=1)
    assert latest_step(tmp_path) == 7
    checkpoint = load_checkpoint(tmp_path, 7, "data")
    assert torch.equal(checkpoint.weights["weight"], torch.full((4, 3), 0.25))
    assert torch.equal(checkpoint.optimizer["weight/exp_avg"], torch.ones(4, 3))
    assert (checkpoint.step, checkpoint.seconds, checkpoint.skipped) == (7, 1.5, 2)


def test_last_and_permanent_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 13):
        save_checkpoint(tmp_path, make(step), keep=2, permanent_every=5)
    assert kept(tmp_path) == [5, 10, 11, 12]


def test_unfinished_checkpoints_are_removed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1), keep=1)
    (tmp_path / "step-00000002.partial").mkdir()
    (tmp_path / "step-00000002.partial" / "model.safetensors").write_bytes(b"half")
    assert latest_step(tmp_path) == 1
    assert kept(tmp_path) == [1]


def test_state_dict_copy_does_not_alias_the_weights(tmp_path: Path) -> None:
    weight = torch.zeros(4, 3)
    saver = AsyncCheckpointer(tmp_path, keep=1, permanent_every=0)
    saver.save(Checkpoint(1, full_cpu_state_dict({"weight": weight}, SINGLE_PROCESS), {}, "data", 0.0, 0))
    weight += 1
    saver.wait()
    assert torch.equal(load_checkpoint(tmp_path, 1, "data").weights["weight"], torch.zeros(4, 3))


def test_background_errors_are_raised_by_the_next_check(tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file where a folder should be")
    saver = AsyncCheckpointer(blocked, keep=1, permanent_every=0)
    saver.save(make(1))
    with pytest.raises(KeyLMError, match=r"cannot save .*step-00000001 \(Not a directory\): free some space"):
        saver.wait()
    with pytest.raises(KeyLMError, match="cannot save"):
        saver.check()
