"""A run folder with a single GGUF file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keylm.gguf.locate import gguf_path
from keylm.run import Run


def run_with(exported: Run, folder: Path, file_type: str = "Q8_0") -> Run:
    """A run in `folder` with a copy of one GGUF of another run's export; skips the test if there is none."""
    if not gguf_path(exported, file_type).exists():
        pytest.skip(f"the run has no {file_type} export")
    run = Run(folder, exported.recipe)
    run.stage("export").mkdir(parents=True)
    shutil.copy(gguf_path(exported, file_type), run.stage("export"))
    return run
