"""Checkpoints: written atomically, in the background, verified when read, and without pickle.

A checkpoint holds full tensors, so training can resume from it with any number of ranks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from keylm.common.console import console
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import read_json, replace_folder, sha256, write_json

_UNFINISHED = ".partial"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to resume after `step` steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    data: str
    """Fingerprint of the data that the weights were trained on."""
    seconds: float
    """Time spent in steps so far."""
    skipped: int
    """Steps skipped so far."""


@dataclass
class AsyncCheckpointer:
    """Writes checkpoints under `folder` in a background thread, one at a time, while training goes on."""

    folder: Path
    keep: int
    """Number of earlier checkpoints kept besides the latest."""
    permanent_every: int
    """Checkpoints at multiples of this many steps are never deleted (0: none)."""

    def __post_init__(self) -> None:
        # One thread: two checkpoints at a time would be two copies of the state in memory.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Start writing a checkpoint, whose tensors nobody else may change; waits for the previous one first."""
        self.wait()
        self._writing = self._writer.submit(save_checkpoint, self.folder, checkpoint, self.keep, self.permanent_every)

    def check(self) -> None:
        """Raise the error of the last write, if it has failed.

        Raises:
            KeyLMError: see `save_checkpoint`.
        """
        if self.is_idle():
            self.wait()

    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return self._writing is None or self._writing.done()

    def wait(self) -> None:
        """Block until the last write is on the disk; raises like `check`."""
        if self._writing is not None:
            self._writing.result()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, permanent_every: int = 0) -> Path:
    """Write `folder/step-XXXXXXXX`, then delete older checkpoints except the last `keep` and the permanent ones.

    Raises:
        KeyLMError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = _empty(folder / f"{final.name}{_UNFINISHED}")
    with _writing(partial, final):
        partial.mkdir(parents=True)
        save_file(checkpoint.weights, partial / "model.safetensors")
        save_file(checkpoint.optimizer, partial / "optimizer.safetensors")
        # With the hashes of the other files: a disk that loses bytes silently is noticed when training resumes.
        write_json(partial / "state.json", _state(checkpoint, partial))
        replace_folder(partial, final)
    # Only now, so that at every instant at least one whole checkpoint is on the disk.
    for old in _saved(folder)[: -keep - 1]:
        if not permanent_every or _step(old) % permanent_every:
            # Renamed first, so that a kill leaves it whole or out of sight.
            shutil.rmtree(old.rename(old.with_name(f"{old.name}{_UNFINISHED}")))
    return final


def latest_step(folder: Path) -> int:
    """Step of the latest intact checkpoint under `folder`, or 0 if there is none.

    Unfinished checkpoints are removed. Damaged ones after the latest intact one are renamed, and named on the console.

    Raises:
        KeyLMError: there are checkpoints, and all of them are damaged.
    """
    # What a kill left half-written would otherwise take gigabytes that nobody counts.
    for unfinished in folder.glob(f"step-*{_UNFINISHED}"):
        shutil.rmtree(unfinished)
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_saved(folder)):
        problem = _problem(path)
        if problem is None:
            _rename_damaged(damaged, path)
            return _step(path)
        damaged.append((path, problem))
    if damaged:
        raise KeyLMError(
            f"{damaged[0][1]}, and there is no intact checkpoint before it: delete {folder} to train from the start"
        )
    return 0


def load_checkpoint(folder: Path, step: int, data: str) -> Checkpoint:
    """Load the checkpoint of `step` under `folder`.

    Raises:
        UserError: it was trained on data with another fingerprint than `data`.
    """
    path = folder / f"step-{step:08d}"
    state = read_json(path / "state.json")
    if state["data"] != data:
        raise UserError(
            f"{path} was trained on other data (fingerprint {state['data']}, now {data}): "
            f"restore the prepared data, or delete {path.parent} to train from the start"
        )
    return Checkpoint(
        step=state["step"],
        weights=load_file(path / "model.safetensors"),
        optimizer=load_file(path / "optimizer.safetensors"),
        data=state["data"],
        seconds=state["seconds"],
        skipped=state["skipped"],
    )


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Write the final weights to `folder/model.safetensors` atomically; raises like `save_checkpoint`."""
    partial = _empty(folder.with_name(f"{folder.name}{_UNFINISHED}"))
    with _writing(partial, folder):
        partial.mkdir(parents=True)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        replace_folder(partial, folder)


@contextmanager
def _writing(partial: Path, final: Path) -> Iterator[None]:
    """Remove what is half-written if the disk is full, and say so in one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise KeyLMError(
            f"cannot save {final} ({reason}): free some space and run the same command again; "
            f"older checkpoints are intact"
        ) from error


def _state(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "data": checkpoint.data,
        "seconds": checkpoint.seconds,
        "skipped": checkpoint.skipped,
        "torch": torch.__version__,
        "sha256": {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }


def _problem(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None if it is intact."""
    state = path / "state.json"
    if not state.exists():
        return f"{state} is missing"
    try:
        hashes = read_json(state)["sha256"]
    except (UserError, KeyError):
        return f"{state} is damaged"
    for name, expected in hashes.items():
        if not (path / name).exists():
            return f"{path / name} is missing"
        if sha256(path / name) != expected:
            return f"{path / name} is damaged"
    return None


def _rename_damaged(damaged: list[tuple[Path, str]], intact: Path) -> None:
    """Rename damaged checkpoints, so that they are neither tried again nor counted among those to keep."""
    for path, problem in damaged:
        aside = path.with_name(f"{path.name}{_DAMAGED}")
        _empty(aside)
        path.rename(aside)
        console.print(f"  {problem}: renamed to {aside.name}; using {intact.name} instead")


def _saved(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    # Unfinished and damaged ones have a suffix.
    return sorted(path for path in folder.glob("step-*") if not path.suffix)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _empty(path: Path) -> Path:
    """Delete what is at a path, and return the path."""
    if path.exists():
        shutil.rmtree(path)
    return path
