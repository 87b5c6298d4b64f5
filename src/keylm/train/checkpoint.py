"""Checkpoints: written whole or not at all, checked when read, free of pickle."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from keylm.errors import KeyLMError, UserError
from keylm.run import read_json, replace_folder, write_json


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


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder/step-XXXXXXXX`, then delete all but the newest `keep` before it.

    Raises:
        KeyLMError: the disk is full or refuses; older checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f"{final.name}.partial"
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        save_file(_contiguous(checkpoint.weights), partial / "model.safetensors")
        save_file(_contiguous(checkpoint.optimizer), partial / "optimizer.safetensors")
        write_json(partial / "state.json", _state(checkpoint, partial))
        replace_folder(partial, final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise KeyLMError(
            f"cannot save {final} ({error.strerror or error}): make room and run the same command again; "
            f"older checkpoints are whole"
        ) from error
    for old in _saved(folder)[: -keep - 1]:
        shutil.rmtree(old)
    return final


def load_newest(folder: Path, data: str) -> Checkpoint | None:
    """The newest checkpoint under `folder`, or None.

    Raises:
        KeyLMError: a file of it is damaged.
        UserError: it saw other data than `data`.
    """
    saved = _saved(folder)
    return load(saved[-1], data) if saved else None


def load(path: Path, data: str) -> Checkpoint:
    """Read one checkpoint; raises as `load_newest` does."""
    state = read_json(path / "state.json")
    for name, expected in state["sha256"].items():
        if not (path / name).exists() or _sha256(path / name) != expected:
            raise KeyLMError(f"{path / name} is damaged: delete {path} to go on from the one before")
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
    )


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Write the final weights to `folder/model.safetensors`, whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    save_file(_contiguous(weights), partial / "model.safetensors", metadata={"format": "pt"})
    replace_folder(partial, folder)


def _state(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "data": checkpoint.data,
        "seconds": checkpoint.seconds,
        "torch": torch.__version__,
        "sha256": {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
