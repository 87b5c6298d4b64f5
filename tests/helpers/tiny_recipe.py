"""A recipe for seconds, for whatever needs a run of its own."""

from __future__ import annotations

import random
from pathlib import Path

import yaml


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
        # Gentle, so that processors that sum in other orders stay near one another.
        "optimizer": {"learning_rate_scale": 0.3},
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
                {"name": "prose", "type": "files", "path": str(text), "weight": 0.6},
                {"name": "talk", "type": "instructions", "num_documents": 300, "weight": 0.4},
            ],
        },
        "train": training,
        "sft": {
            **training,
            "tokens": 10 * 512,
            "sequence_length": 128,
            "sources": [{"name": "talk", "type": "instructions", "num_documents": 300}],
        },
        "eval": {"instructions": 8, "max_new_tokens": 8, "bits_per_byte_bytes": 2000},
        **changes,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
