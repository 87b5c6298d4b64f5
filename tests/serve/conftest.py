from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from tiny_run import tiny_run

from keylm import export
from keylm.export import proof
from keylm.run import Run
from keylm.serve.engine import Engine, find_gguf


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished export of a tiny run with random weights."""
    proof.NUM_TEXTS = 100
    run = tiny_run(tmp_path_factory.mktemp("served") / "tiny")
    export.build(run)
    return run


@pytest.fixture(scope="module")
def engine(exported: Run) -> Iterator[Engine]:
    with closing(Engine(find_gguf(exported.folder), num_slots=4, num_threads=1)) as engine:
        yield engine
