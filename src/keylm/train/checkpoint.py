"""Checkpoints: written whole or not at all, in the background, checked when read, free of pickle.

A checkpoint holds whole tensors, whatever the number of ranks that wrote it: any other number can go on from it.
"""

from __future__ import annotations

import hashlib
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
from keylm.common.files import read_json, replace_folder, write_json

_UNFINISHED = ".partial"
_DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs in order to go on after `step` steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    data: str
    """Fingerprint of the data that the weights have seen."""
    seconds: float
    """Time spent in training so far."""
    skipped: int
    """Steps that were skipped so far."""


@dataclass
class AsyncCheckpointer:
    """Writes checkpoints under `folder` in a thread, one at a time, while training goes on."""

    folder: Path
    keep: int
    """Old checkpoints kept beside the newest."""
    permanent_every: int
    """Checkpoints at multiples of so many steps are kept for good (0: none)."""

    def __post_init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, whose tensors must be its own; the one before is finished first."""
        self.wait()
        self._writing = self._writer.submit(save_checkpoint, self.folder, checkpoint, self.keep, self.permanent_every)

    def check(self) -> None:
        """Fail if the last write has failed.

        Raises:
            KeyLMError: as `save_checkpoint` does.
        """
        if self.is_idle():
            self.wait()

    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return self._writing is None or self._writing.done()

    def wait(self) -> None:
        """Until what was begun is on the disk; raises as `check` does."""
        if self._writing is not None:
            self._writing.result()


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int, permanent_every: int = 0) -> Path:
    """Write `folder/step-XXXXXXXX`, then delete older ones, except the last `keep` and the permanent ones.

    Raises:
        KeyLMError: the disk is full or refuses; older checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = _empty(folder / f"{final.name}{_UNFINISHED}")
    with _writing(partial, final):
        partial.mkdir(parents=True)
        save_file(checkpoint.weights, partial / "model.safetensors")
        save_file(checkpoint.optimizer, partial / "optimizer.safetensors")
        write_json(partial / "state.json", _state(checkpoint, partial))
        replace_folder(partial, final)
    for old in _saved(folder)[: -keep - 1]:
        if not permanent_every or _step(old) % permanent_every:
            _delete(old)
    return final


def latest_step(folder: Path) -> int:
    """Step of the newest whole checkpoint under `folder`, or 0; damaged ones after it are put aside, with a line.

    Raises:
        KeyLMError: there are checkpoints, and all of them are damaged.
    """
    for unfinished in folder.glob(f"step-*{_UNFINISHED}"):
        shutil.rmtree(unfinished)
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_saved(folder)):
        problem = _problem(path)
        if problem is None:
            _put_aside(damaged, path)
            return _step(path)
        damaged.append((path, problem))
    if damaged:
        raise KeyLMError(
            f"{damaged[0][1]}, and there is no whole checkpoint before it: delete {folder} to train from the start"
        )
    return 0


def load_checkpoint(folder: Path, step: int, data: str) -> Checkpoint:
    """The checkpoint of `step` under `folder`.

    Raises:
        UserError: it saw other data than `data`.
    """
    path = folder / f"step-{step:08d}"
    state = read_json(path / "state.json")
    if state["data"] != data:
        raise UserError(
            f"{path} saw other data (fingerprint {state['data']}, now {data}): "
            f"put the prepared data back, or delete {path.parent} to train anew"
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
    """Write the final weights to `folder/model.safetensors`, whole or not at all; raises as `save_checkpoint` does."""
    partial = _empty(folder.with_name(f"{folder.name}{_UNFINISHED}"))
    with _writing(partial, folder):
        partial.mkdir(parents=True)
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        replace_folder(partial, folder)


@contextmanager
def _writing(partial: Path, final: Path) -> Iterator[None]:
    """Leave nothing half-written where the disk refuses."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise KeyLMError(
            f"cannot save {final} ({reason}): make room and run the same command again; older checkpoints are whole"
        ) from error


def _state(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "data": checkpoint.data,
        "seconds": checkpoint.seconds,
        "skipped": checkpoint.skipped,
        "torch": torch.__version__,
        "sha256": {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }


def _problem(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, if anything."""
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
        if _sha256(path / name) != expected:
            return f"{path / name} is damaged"
    return None


def _put_aside(damaged: list[tuple[Path, str]], whole: Path) -> None:
    """Rename damaged checkpoints, so that they are not tried again, nor counted among those to keep."""
    for path, problem in damaged:
        aside = path.with_name(f"{path.name}{_DAMAGED}")
        _empty(aside)
        path.rename(aside)
        console.print(f"  {problem}: put aside as {aside.name}, and {whole.name} taken instead")


def _saved(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if not path.suffix)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _delete(path: Path) -> None:
    """Delete a checkpoint so that a kill leaves it whole or out of sight."""
    shutil.rmtree(path.rename(path.with_name(f"{path.name}{_UNFINISHED}")))


def _empty(path: Path) -> Path:
    """A path at which nothing is."""
    if path.exists():
        shutil.rmtree(path)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
