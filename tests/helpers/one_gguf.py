"""A run that has nothing but one GGUF of another run's export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keylm.gguf.locate import gguf_path
from keylm.run import Run


def run_with(exported: Run, folder: Path, kind: str = "Q8_0") -> Run:
    """The run in `folder`, with a copy of the GGUF of that kind; the test is skipped where there is none."""
    if not gguf_path(exported, kind).exists():
        pytest.skip(f"the run has no {kind} export")
    run = Run(folder, exported.recipe)
    run.stage("export").mkdir(parents=True)
    shutil.copy(gguf_path(exported, kind), run.stage("export"))
    return run
