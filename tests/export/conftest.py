from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_run import tiny_run

from keylm import export
from keylm.export import proof
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
