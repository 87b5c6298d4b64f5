"""What each GGUF file loses: its weights, decoded again, on held-out text beside the weights that it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keylm.run import Run

if TYPE_CHECKING:
    import torch

    from keylm.common.arrays import Array

NUM_TOKENS = 16_384
"""Held-out tokens to predict, about 50 KB of text."""


def measure_quantization(run: Run, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Bytes, bits per weight, and the perplexity on held-out text of each GGUF of the run's export, by kind.

    `weights` are those that the files were made of; their perplexity is that of `F32`. What is measured is the file,
    decoded: llama.cpp also rounds activations, to eight bits where weights have eight or fewer. A run that has no
    held-out text has no perplexities.
    """
    from keylm.gguf.file import read_weights
    from keylm.gguf.locate import gguf_path

    text = _held_out(run)
    paths = {kind: gguf_path(run, kind) for kind in run.recipe.export.gguf}
    count = sum(tensor.numel() for tensor in weights.values())
    found: dict[str, Any] = {
        kind: {"bytes": path.stat().st_size, "bits_per_weight": round(8 * path.stat().st_size / count, 2)}
        for kind, path in paths.items()
    }
    if not paths or not len(text):
        return found
    found = {"F32": {}, **found}
    found["F32"]["perplexity"] = _perplexity(run, {name: tensor.float() for name, tensor in weights.items()}, text)
    for kind, path in paths.items():
        if kind != "F32":
            found[kind]["perplexity"] = _perplexity(run, read_weights(path, run.recipe.model, weights), text)
    return found


def quantization_section(found: dict[str, Any]) -> str:
    """The card's table of GGUF files; empty where there are none."""
    from keylm.export.card_scores import markdown_table

    if not found:
        return ""
    exact = found.get("F32", {}).get("perplexity")
    rows = [
        [f"`{kind}`", _size(row), row.get("bits_per_weight", ""), *_losses(row, exact)] for kind, row in found.items()
    ]
    head = ["kind", "size", "bits per weight", *(["perplexity", "against F32"] if exact else [])]
    tested = f", and their perplexity on {NUM_TOKENS:,} tokens of held-out text" if exact else ""
    return f"\nThe GGUF files{tested}:\n\n{markdown_table(head, *rows)}"


def _held_out(run: Run) -> Array:
    """The same number of validation tokens from every pretraining source that has any: (n,) uint16."""
    from keylm.data.prepare.token_store import TokenStore

    folders = [run.stage("prepare") / "pretrain" / source.name / "validation" for source in run.recipe.data.sources]
    stores = [TokenStore(folder) for folder in folders if folder.exists()]
    parts = [store.tokens(0, min(int(store.document_ends[-1]), NUM_TOKENS // len(stores))) for store in stores]
    return np.concatenate([np.empty(0, np.uint16), *parts])


def _perplexity(run: Run, weights: dict[str, torch.Tensor], text: Array) -> float:
    from keylm.evaluate.bits_per_byte import model_bits
    from keylm.model.transformer import KeyLM
    from keylm.tokenizer.tokenizer import Tokenizer

    model = KeyLM(run.recipe.model)
    model.load_state_dict(weights)
    separator = Tokenizer.load(run.stage("tokenizer")).end_of_text
    bits = model_bits(model.eval(), text, separator, run.recipe.train.sequence_length)
    return round(2 ** (bits / len(text)), 4)


def _size(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:,.1f} MB" if "bytes" in row else ""


def _losses(row: dict[str, Any], exact: float | None) -> list[str]:
    if not exact:
        return []
    return [f"{row['perplexity']:.3f}", f"{row['perplexity'] / exact - 1:+.2%}"]
