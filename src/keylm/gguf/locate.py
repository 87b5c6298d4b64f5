"""Where a run keeps its GGUF files, and which of them to load."""

from __future__ import annotations

from pathlib import Path

from keylm.common.errors import UserError
from keylm.run import Run


def gguf_path(run: Run, kind: str) -> Path:
    """The GGUF file of a run's export, by its kind."""
    return run.stage("export") / f"{run.recipe.name}-{kind}.gguf"


def best_to_run(ggufs: list[Path]) -> Path:
    """The one of several GGUF files to chat with, by the kind in its name."""
    from keylm.gguf.tensor_types import best_type

    kinds = {path.stem.rpartition("-")[2]: path for path in sorted(ggufs)}
    return kinds[best_type(kinds)]


def find_gguf(model: Path) -> Path:
    """The GGUF that `model` stands for: a GGUF file, an export folder or a run folder.

    Raises:
        UserError: there is none.
    """
    if model.is_file():
        return model
    if not model.exists():
        raise UserError(f"{model} does not exist: name a run, an export folder or a GGUF file")
    ggufs = [*model.glob("*.gguf"), *model.glob("export/*.gguf")]
    if not ggufs:
        raise UserError(f"{model} holds no GGUF file: run `keylm export {model}` first")
    return best_to_run(ggufs)
