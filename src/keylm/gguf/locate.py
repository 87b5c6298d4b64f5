"""Paths of a run's GGUF files, and the choice of the one to load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import CHECKSUMS, cached_sha256, read_checksums
from keylm.gguf.cache import cached_gguf
from keylm.shipped import DEFAULT, SHIPPED, shipped_model

if TYPE_CHECKING:
    from keylm.run import Run

# Q8_0 first: half the size and about twice the speed of F16, without a visible difference in the answers. Below it,
# answers get worse with the size, so the remaining types follow only after the exact ones.
_PREFERENCE = ("Q8_0", "F16", "BF16", "F32", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0")


def gguf_path(run: Run, file_type: str) -> Path:
    """Path of the GGUF of a file type (`F16`, `Q8_0`, ...) in a run's export; the file may not exist."""
    return run.stage("export") / f"{run.recipe.name}-{file_type}.gguf"


def preferred_file_type(file_types: Iterable[str]) -> str:
    """The file type to chat with: the smallest one whose answers match the unquantized weights, if there is one."""
    ranks = {file_type: rank for rank, file_type in enumerate(_PREFERENCE)}
    return min(file_types, key=lambda file_type: (ranks.get(file_type, len(ranks)), file_type))


def preferred_gguf(paths: list[Path]) -> Path:
    """The file to chat with among several, by the file type at the end of its name."""
    by_file_type = {path.stem.rpartition("-")[2]: path for path in sorted(paths)}
    return by_file_type[preferred_file_type(by_file_type)]


def find_gguf(model: Path | None) -> Path:
    """Resolve a GGUF file, an export folder, a run folder or the name of a shipped model to a GGUF file.

    A file or folder goes first where it has the name of a shipped model. None stands for the default one.

    Raises:
        UserError: The path does not exist, the folder has no GGUF file, or this installation lacks the shipped model.
        KeyLMError: The file or the shipped model is damaged.
    """
    if shipped := shipped_model(model) if model else DEFAULT:
        return cached_gguf(shipped, _PREFERENCE[0])
    assert model
    path = model if model.is_file() else _gguf_in_folder(model)
    _refuse_damaged(path)
    return path


def _gguf_in_folder(model: Path) -> Path:
    if not model.exists():
        raise UserError(
            f"{model} does not exist: pass a run folder, an export folder, a GGUF file, or one of {', '.join(SHIPPED)}"
        )
    paths = [*model.glob("*.gguf"), *model.glob("export/*.gguf")]
    if not paths:
        raise UserError(f"{model} has no GGUF file: run `keylm export {model}` first")
    return preferred_gguf(paths)


def _refuse_damaged(path: Path) -> None:
    """Refuse a GGUF whose hash is not the one that the export wrote beside it.

    llama.cpp loads what was changed or damaged, and only answers worse.
    """
    checksums = path.parent / CHECKSUMS
    expected = read_checksums(path.parent).get(path.name) if checksums.exists() else None
    if expected and expected != cached_sha256(path):
        raise KeyLMError(
            f"{path} is damaged (its hash is not that of {CHECKSUMS}): export again with `--remake export`; or delete "
            f"{checksums}, if it was changed on purpose"
        )
