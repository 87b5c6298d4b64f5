"""The loss of quality in each GGUF file: the perplexity of its decoded weights on held-out text."""

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
    """Measure the size and the perplexity of every GGUF file in a run's export.

    The weights are decoded to float32 first. llama.cpp also rounds activations, to eight bits where weights have eight
    or fewer, which is not measured here.

    Args:
        run: A run with GGUF files in its export folder.
        weights: The weights that the files were made from, of any float dtype.

    Returns:
        `bytes`, `bits_per_weight` and `perplexity` by file type. `F32` has the perplexity of `weights`, also where
        there is no such file. A run without held-out text has no perplexities.
    """
    from keylm.gguf.file import read_gguf_weights
    from keylm.gguf.locate import gguf_path

    paths = {file_type: gguf_path(run, file_type) for file_type in run.recipe.export.gguf}
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    quality: dict[str, Any] = {}
    for file_type, path in paths.items():
        num_bytes = path.stat().st_size
        quality[file_type] = {"bytes": num_bytes, "bits_per_weight": round(8 * num_bytes / num_parameters, 2)}

    text = _held_out_tokens(run)
    if not paths or not len(text):
        return quality
    quality = {"F32": {}, **quality}
    exact = {name: tensor.float() for name, tensor in weights.items()}
    quality["F32"]["perplexity"] = _perplexity(run, exact, text)
    for file_type, path in paths.items():
        if file_type != "F32":  # such a file holds the very numbers of `weights`
            decoded = read_gguf_weights(path, run.recipe.model, weights)
            quality[file_type]["perplexity"] = _perplexity(run, decoded, text)
    return quality


def _held_out_tokens(run: Run) -> Array:
    """`NUM_TOKENS` validation tokens (n,) of uint16, an equal number from each pretraining source that has any."""
    from keylm.data.prepare.outputs import source_folder
    from keylm.data.prepare.token_store import TokenStore

    folders = [source_folder(run, "pretrain", source.name) / "validation" for source in run.recipe.data.sources]
    # Of a source with few documents, none may be held out.
    stores = [store for folder in folders if folder.exists() and (store := TokenStore(folder)).num_documents]
    parts = [store.tokens(0, min(int(store.document_ends[-1]), NUM_TOKENS // len(stores))) for store in stores]
    return np.concatenate([np.empty(0, np.uint16), *parts])


def _perplexity(run: Run, weights: dict[str, torch.Tensor], text: Array) -> float:
    from keylm.evaluate.bits_per_byte import model_bits
    from keylm.model.transformer import KeyLM
    from keylm.tokenizer.tokenizer import Tokenizer

    model = KeyLM(run.recipe.model).eval()
    model.load_state_dict(weights)
    separator = Tokenizer.load(run.stage("tokenizer")).end_of_text
    bits = model_bits(model, text, separator, run.recipe.train.sequence_length)
    return round(2 ** (bits / len(text)), 4)
