"""What a score is of, and by what: the versions of packages, the hashes of weights and of data."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keylm.common.files import sha256
from keylm.run import Run
from keylm.stages import completed_training_stages

PACKAGES = ("keylm", "torch", "transformers", "tokenizers", "lm_eval", "gguf", "xllamacpp")


def versions() -> dict[str, str]:
    """Versions of python and of the packages that shape a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def provenance_of(model: Run | Path, names: list[str], data: Path | None) -> dict[str, Any]:
    """Where the scores of a model on lm_eval's tasks come from: `model`, `seed`, `versions`, and `sha256` by file.

    The files are the weights that were scored and, where the tasks were read from a folder, their data.
    """
    weights = _weights(model)
    documents = [data / f"{name}.jsonl.gz" for name in names] if data else []
    return {
        "model": str(model.folder if isinstance(model, Run) else model),
        "seed": model.recipe.seed if isinstance(model, Run) else 0,
        "versions": versions(),
        "sha256": {path.name: sha256(path) for path in [*weights, *documents]},
    }


def _weights(model: Run | Path) -> list[Path]:
    if isinstance(model, Run):
        return [model.weights(completed_training_stages(model)[-1])]
    return [model] if model.is_file() else sorted(model.glob("*.safetensors"))
