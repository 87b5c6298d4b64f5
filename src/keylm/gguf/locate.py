"""Paths of a run's GGUF files, and the choice of the one to load."""

from __future__ import annotations

from pathlib import Path

from keylm.common.errors import UserError
from keylm.run import Run


def gguf_path(run: Run, file_type: str) -> Path:
    """Path of the GGUF of a file type (`F16`, `Q8_0`, ...) in a run's export; the file may not exist."""
    return run.stage("export") / f"{run.recipe.name}-{file_type}.gguf"


def preferred_gguf(paths: list[Path]) -> Path:
    """The file to chat with among several, by the file type at the end of its name."""
    from keylm.gguf.tensor_types import preferred_file_type

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
