from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import openai
import pytest
from helpers.one_gguf import run_with
from helpers.tiny_server import running

from keylm.gguf.locate import find_gguf
from keylm.run import Run
from keylm.serve import static_page
from keylm.serve.engine import Engine
from keylm.serve.server import Server


@pytest.fixture(scope="module")
def engine(exported: Run) -> Iterator[Engine]:
    with closing(Engine(find_gguf(exported.folder), num_slots=4, num_threads=1)) as engine:
        yield engine


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Server]:
    with running(engine) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of an installed wllama."""
    if "KEYLM_WLLAMA" not in os.environ:
        pytest.skip(
            f"KEYLM_WLLAMA does not name the folder of an installed {static_page.PACKAGE} {static_page.VERSION}"
        )
    return Path(os.environ["KEYLM_WLLAMA"])


@pytest.fixture
def run(exported: Run, tmp_path: Path) -> Run:
    """A run with one GGUF of the export, and nothing else."""
    return run_with(exported, tmp_path / "run")
