"""What the tests share: small recipes, the way to shared data, one thread per process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch
from helpers.browser import CHROMIUM
from helpers.tiny_recipe import write_tiny_recipe
from helpers.tiny_run import tiny_run as make_tiny_run
from hypothesis import settings

from keylm.export import verify
from keylm.export.stage import run_export
from keylm.recipe.model import ModelConfig
from keylm.run import Run, open_run
from keylm.stages import run_until

# Some tests send themselves a Ctrl-C, which a shell has its background jobs ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` tries the same examples on every machine, so that a change alone turns it red; `make test-all` looks for
# new ones (HYPOTHESIS_PROFILE=exploring).
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("exploring", print_blob=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `text/` and `eval/`; tests that need it are skipped where KEYLM_SHARED does not name it."""
    folder = os.environ.get("KEYLM_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KEYLM_SHARED does not name a folder with text/ and eval/")
    return Path(folder)


@pytest.fixture
def tiny_model() -> ModelConfig:
    """A model of 60,000 parameters with grouped queries."""
    return ModelConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=64,
    )


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its tokenizer and its tokens, not yet trained. Copy it before you train in it."""
    folder = tmp_path_factory.mktemp("prepared")
    run = open_run(write_tiny_recipe(folder), folder=folder / "run")
    run_until(run, "tokenizer")
    run_until(run, "prepare")
    return run


@pytest.fixture
def tiny_run(prepared: Run, tmp_path: Path) -> Run:
    """A copy of the prepared run, to train in."""
    shutil.copytree(prepared.folder, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture(scope="session")
def trained(prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its pretraining and SFT. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(prepared.folder, folder)
    run = open_run(folder)
    run_until(run, "pretrain")
    run_until(run, "sft")
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium. Of one module: while it runs, no other test can have an event loop of its own."""
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", autouse=True)
def _few_texts() -> None:
    """Exports in tests check every code point, but few random texts: `test_verify` looks at all of them."""
    verify.NUM_TEXTS = 1000


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished export: of the run that KEYLM_RUN names, or of a tiny one with random weights."""
    if "KEYLM_RUN" in os.environ:
        return open_run(Path(os.environ["KEYLM_RUN"]))
    run = make_tiny_run(tmp_path_factory.mktemp("runs") / "tiny")
    run_export(run)
    return run
