from __future__ import annotations

import os
from pathlib import Path

import pytest
from one_gguf import run_with
from tiny_run import tiny_run

from keylm import export
from keylm.export import proof, web
from keylm.run import Run, open_run


@pytest.fixture(scope="session", autouse=True)
def _few_texts() -> None:
    """Exports in tests check every code point, but few random texts: `test_proof` looks at all of them."""
    proof.NUM_TEXTS = 1000


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished export: of the run that KEYLM_RUN names, or of a tiny one with random weights."""
    if "KEYLM_RUN" in os.environ:
        return open_run(Path(os.environ["KEYLM_RUN"]))
    run = tiny_run(tmp_path_factory.mktemp("runs") / "tiny")
    export.build(run)
    return run


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of an installed wllama."""
    if "KEYLM_WLLAMA" not in os.environ:
        pytest.skip(f"KEYLM_WLLAMA does not name the folder of an installed {web.PACKAGE} {web.VERSION}")
    return Path(os.environ["KEYLM_WLLAMA"])


@pytest.fixture
def run(exported: Run, tmp_path: Path) -> Run:
    """A run with one GGUF of the export, and nothing else."""
    return run_with(exported, tmp_path / "run")
