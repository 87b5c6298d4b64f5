"""What the tests share: small recipes, the way to shared data, one thread per process."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch
import yaml

from keylm import recipe, stages
from keylm.run import Run, open_run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `text/` and `eval/`; tests that need it are skipped where KEYLM_SHARED does not name it."""
    folder = os.environ.get("KEYLM_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KEYLM_SHARED does not name a folder with text/ and eval/")
    return Path(folder)


@pytest.fixture
def tiny_model() -> recipe.Model:
    """A model of 60,000 parameters with grouped queries."""
    return recipe.Model(
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


def write_tiny_recipe(folder: Path, **changes: object) -> Path:
    """A recipe for seconds: real prose in a file, generated conversations, a model of 120,000 parameters."""
    text = folder / "text.txt"
    words = "the a river stone house walks sees old young garden tree letter of in under with light".split()  # noqa: SIM905
    generator = random.Random(0)
    paragraphs = [" ".join(generator.choices(words, k=60)).capitalize() + "." for _ in range(400)]
    text.write_text("\n\n".join(paragraphs))
    training = {
        "tokens": 30 * 512,
        "batch_tokens": 512,
        "micro_batch_tokens": 256,
        "sequence_length": 64,
        "validation_bytes": 2000,
        "compute_dtype": "float32",
    }
    values: dict[str, object] = {
        "name": "tiny",
        "model": {
            "vocab_size": 400,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
        },
        "data": {
            "validation_fraction": 0.1,
            "sources": [
                {"name": "prose", "kind": "files", "path": str(text), "weight": 0.6},
                {"name": "talk", "kind": "instructions", "num_documents": 300, "weight": 0.4},
            ],
        },
        "train": training,
        "sft": {
            **training,
            "tokens": 10 * 512,
            "sequence_length": 128,
            "sources": [{"name": "talk", "kind": "instructions", "num_documents": 300}],
        },
        "eval": {"instructions": 8, "max_new_tokens": 8, "bits_per_byte_bytes": 2000},
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its tokenizer and its tokens, not yet trained. Copy it before you train in it."""
    folder = tmp_path_factory.mktemp("prepared")
    run = open_run(write_tiny_recipe(folder), folder=folder / "run")
    stages.run_until(run, "tokenizer")
    stages.run_until(run, "prepare")
    return run


@pytest.fixture
def tiny_run(prepared: Run, tmp_path: Path) -> Run:
    """A copy of the prepared run, to train in."""
    shutil.copytree(prepared.folder, tmp_path / "run")
    return open_run(tmp_path / "run")
