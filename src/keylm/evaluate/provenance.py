"""Provenance of scores: versions of packages, and hashes of weights and data."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keylm
from keylm.common.files import sha256
from keylm.run import Run
from keylm.stages import completed_training_stages

PACKAGES = ("keylm", "torch", "transformers", "tokenizers", "lm_eval", "gguf", "xllamacpp")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def origin() -> dict[str, str]:
    """The date (UTC), the command line, and KeyLM's commit where it runs from a checkout (else empty)."""
    # Only its own checkout: an installed package may lie in an environment inside somebody's repository.
    root = Path(keylm.__file__).parents[2]
    git = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    is_checkout = (root / ".git").exists() and shutil.which("git")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": shlex.join(["keylm", *sys.argv[1:]]),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() if is_checkout else "",
    }


def provenance_of(model: Run | Path, tasks: Sequence[str], data: Path | None) -> dict[str, Any]:
    """What the scores of a model depend on: `model`, `seed`, `versions`, and `sha256` by file name.

    Args:
        model: A run, whose last weights are hashed, or a GGUF file or transformers folder.
        tasks: lm_eval tasks.
        data: Folder with their data files, which are hashed too; None if they come from the hub.
    """
    if isinstance(model, Run):
        weights = [model.weights(completed_training_stages(model)[-1])]
    else:
        weights = [model] if model.is_file() else sorted(model.glob("*.safetensors"))
    documents = [data / f"{task}.jsonl.gz" for task in tasks] if data else []
    return {
        "model": str(model.folder if isinstance(model, Run) else model),
        "seed": model.recipe.seed if isinstance(model, Run) else 0,
        "versions": versions(),
        "sha256": {path.name: sha256(path) for path in [*weights, *documents]},
    }
