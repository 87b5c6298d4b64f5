"""Paths of a run's GGUF files, and the choice of the one to load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from keylm.common.errors import UserError

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


def find_gguf(model: Path) -> Path:
    """Resolve a GGUF file, an export folder or a run folder to a GGUF file.

    Raises:
        UserError: The path does not exist, or the folder has no GGUF file.
    """
    if model.is_file():
        return model
    if not model.exists():
        raise UserError(f"{model} does not exist: pass a run folder, an export folder or a GGUF file")
    paths = [*model.glob("*.gguf"), *model.glob("export/*.gguf")]
    if not paths:
        raise UserError(f"{model} has no GGUF file: run `keylm export {model}` first")
    return preferred_gguf(paths)
