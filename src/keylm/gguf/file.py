"""GGUF files for llama.cpp, LM Studio and Ollama: written directly from the weights, which can be read back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
from numpy.typing import NDArray

from keylm.gguf.header import EXAMPLES_KEY
from keylm.gguf.quantization import quantize
from keylm.gguf.tensor_types import FILE_TYPES, tensor_type
from keylm.recipe import Recipe
from keylm.recipe.model import ModelConfig
from keylm.run import Run
from keylm.tokenizer.chat_template import CHAT_TEMPLATE
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, Tokenizer, read_merges

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"] | Mapping[str, NDArray[np.float32]]
"""Weights by transformers' Qwen3 names."""

_ARCHITECTURE = gguf.MODEL_ARCH.QWEN3


def write_gguf(
    recipe: Recipe,
    tokenizer_folder: Path,
    weights: Weights,
    file_type: str,
    path: Path,
    license_id: str | None = None,
    examples: Sequence[str] = (),
) -> None:
    """Write a GGUF file atomically.

    Args:
        recipe: The recipe whose names, sizes and sampling defaults go into the metadata.
        tokenizer_folder: The folder with `tokenizer.json`.
        weights: All weights of the model, by transformers' Qwen3 names: tensors of any float dtype, or float32
            arrays.
        file_type: A key of `tensor_types.FILE_TYPES`.
        path: The file to write.
        license_id: License of the weights, as a Hugging Face license identifier; None if it is not stated.
        examples: Requests that the chat page suggests.
    """
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[_ARCHITECTURE])
    _add_metadata(writer, recipe, file_type, license_id)
    if examples:
        writer.add_array(EXAMPLES_KEY, list(examples))
    _add_tokenizer(writer, recipe, tokenizer_folder)
    _add_tensors(writer, recipe.model, weights, file_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_gguf_weights(path: Path, model: ModelConfig, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Decode tensors of a GGUF to float32.

    Args:
        path: The GGUF file.
        model: The sizes of the model.
        names: The tensors to decode, by transformers' Qwen3 names.
    """
    import torch

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    decoded = {}
    for name, gguf_name in _gguf_names(model, names).items():
        tensor = stored[gguf_name]
        decoded[name] = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    return decoded


def license_of(run: Run) -> str | None:
    """The license of a run's weights as a Hugging Face license identifier.

    It is what the recipe says, or else that of the imported model: `other` if it is not one of ours. None if nobody
    has stated any.
    """
    if run.recipe.export.license or not run.base_model:
        return run.recipe.export.license or None
    return "apache-2.0" if run.metadata("tokenizer").get("shipped") else "other"


def _add_metadata(writer: gguf.GGUFWriter, recipe: Recipe, file_type: str, license_id: str | None) -> None:
    model = recipe.model
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(recipe.title or recipe.name)
    if license_id:
        writer.add_license(license_id)
    if recipe.export.author:
        writer.add_author(recipe.export.author)
    if recipe.export.description:
        writer.add_description(recipe.export.description)
    if recipe.export.language:
        writer.add_languages(recipe.export.language)
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_sampling_temp(recipe.export.temperature)
    writer.add_sampling_penalty_repeat(recipe.export.repetition_penalty)

    writer.add_vocab_size(model.vocab_size)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.hidden_size)
    writer.add_block_count(model.num_hidden_layers)
    writer.add_feed_forward_length(model.intermediate_size)
    writer.add_head_count(model.num_attention_heads)
    writer.add_head_count_kv(model.num_key_value_heads)
    writer.add_key_length(model.head_dim)
    writer.add_value_length(model.head_dim)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_theta)
    writer.add_layer_norm_rms_eps(model.rms_norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, recipe: Recipe, folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    tokens = [tokenizer.backend.id_to_token(index) for index in range(tokenizer.vocab_size)]
    # Tokens that are not marked as control tokens would be printed by llama.cpp as text.
    types = [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    # llama.cpp selects the split regex by this name; a wrong name is not an error there, it only gives other tokens.
    writer.add_tokenizer_pre(recipe.tokenizer.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(read_merges(folder)))
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.turn_end)
    writer.add_eot_token_id(tokenizer.turn_end)
    writer.add_pad_token_id(tokenizer.end_of_text)
    # Training adds neither token to a prompt.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, model: ModelConfig, weights: Weights, file_type: str) -> None:
    """Add every tensor under llama.cpp's name.

    The rows of query and key projections keep their order: llama.cpp rotates the two halves of a `qwen3` head, as
    transformers does, whereas for `llama` it expects rotated dimensions side by side.
    """
    names = _gguf_names(model, weights)
    types = {
        name: tensor_type(names[name], tuple(tensor.shape), file_type, model.num_hidden_layers)
        for name, tensor in weights.items()
    }
    # The encoder runs outside the interpreter's lock, so threads encode tensors in parallel.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        encoded = threads.map(quantize, weights.values(), types.values())
        for name, values in zip(weights, encoded, strict=True):
            writer.add_tensor(names[name], values, raw_dtype=types[name])


def _gguf_names(model: ModelConfig, names: Iterable[str]) -> dict[str, str]:
    """llama.cpp's name of each tensor, by transformers' name."""
    known = gguf.get_tensor_name_map(_ARCHITECTURE, model.num_hidden_layers)
    return {name: known.get_name(name, try_suffixes=(".weight",)) for name in names}
