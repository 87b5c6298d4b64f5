"""GGUF files for llama.cpp, LM Studio and Ollama, written straight from the weights; and their header read back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
from tokenizers import AddedToken, models

from keylm.common.errors import UserError
from keylm.gguf.quantization import quantize
from keylm.gguf.tensor_types import FILE_TYPES, tensor_type
from keylm.recipe import Recipe
from keylm.recipe.model import ModelConfig
from keylm.run import Run
from keylm.tokenizer.chat_template import CHAT_TEMPLATE
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, Tokenizer, assemble, merges

if TYPE_CHECKING:
    import torch

_ARCHITECTURE = gguf.MODEL_ARCH.QWEN3


def write_gguf(run: Run, weights: dict[str, torch.Tensor], kind: str, path: Path) -> None:
    """Write one GGUF of `kind` (a key of `mixtures.FILE_TYPES`) from weights under transformers' Qwen3 names."""
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[_ARCHITECTURE])
    _add_facts(writer, run, kind)
    _add_sizes(writer, run.recipe)
    _add_tokenizer(writer, run)
    _add_tensors(writer, run.recipe, weights, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


@dataclass(frozen=True)
class Header:
    """What a chat needs to know of a GGUF besides its weights."""

    name: str
    context_length: int
    temperature: float
    repetition_penalty: float
    tokenizer: Tokenizer


def read_header(path: Path) -> Header:
    """The header of a GGUF that `write_gguf` wrote.

    Raises:
        UserError: the file is not a GGUF, or not one of ours.
    """
    try:
        fields = gguf.GGUFReader(path).fields
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a GGUF file: {error}") from error
    values = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    try:
        return Header(
            name=values[gguf.Keys.General.NAME],
            context_length=values[gguf.Keys.LLM.CONTEXT_LENGTH.format(arch=values[gguf.Keys.General.ARCHITECTURE])],
            temperature=values[gguf.Keys.General.SAMPLING_TEMP],
            repetition_penalty=values[gguf.Keys.General.SAMPLING_PENALTY_REPEAT],
            tokenizer=_tokenizer(values),
        )
    except KeyError as error:
        raise UserError(f"{path} was not written by keylm: its header lacks {error}") from error


def read_weights(path: Path, model: ModelConfig, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The weights of a GGUF, decoded to float32, under the transformers' Qwen3 `names` that are asked for."""
    import torch

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    decoded = {name: stored[theirs] for name, theirs in _llama_names(model, names).items()}
    return {name: torch.tensor(gguf.quants.dequantize(part.data, part.tensor_type)) for name, part in decoded.items()}


def license_of(run: Run) -> str:
    """The licence of a run's weights, by the hub's names: ours, or that of whoever made imported ones."""
    return "other" if run.imported_from("pretrain") else "apache-2.0"


def _tokenizer(values: dict[str, Any]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(values[gguf.Keys.Tokenizer.LIST])}
    pairs = [tuple(merge.split(" ")) for merge in values[gguf.Keys.Tokenizer.MERGES]]
    backend = assemble(models.BPE(vocabulary, pairs), values[gguf.Keys.Tokenizer.PRE])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return Tokenizer(backend)


def _add_facts(writer: gguf.GGUFWriter, run: Run, kind: str) -> None:
    recipe = run.recipe
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(recipe.title or recipe.name)
    writer.add_license(license_of(run))
    writer.add_languages(["en"])
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_sampling_temp(recipe.export.temperature)
    writer.add_sampling_penalty_repeat(recipe.export.repetition_penalty)


def _add_sizes(writer: gguf.GGUFWriter, recipe: Recipe) -> None:
    model = recipe.model
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


def _add_tokenizer(writer: gguf.GGUFWriter, run: Run) -> None:
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    tokens = [tokenizer.backend.id_to_token(index) for index in range(tokenizer.vocab_size)]
    types = [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(run.recipe.tokenizer.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(list(merges(run.stage("tokenizer"))))
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.turn_end)
    writer.add_eot_token_id(tokenizer.turn_end)
    writer.add_pad_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, recipe: Recipe, weights: dict[str, torch.Tensor], kind: str) -> None:
    """Add every tensor under llama.cpp's name. Query and key rows keep their order: `qwen3` turns pairs as we do."""
    names = _llama_names(recipe.model, weights)
    types = {
        name: tensor_type(names[name], tuple(tensor.shape), kind, recipe.model.num_hidden_layers)
        for name, tensor in weights.items()
    }
    # The encoder runs outside the interpreter's lock, so threads encode tensors in parallel.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        encoded = threads.map(quantize, weights.values(), types.values())
        for name, values in zip(weights, encoded, strict=True):
            writer.add_tensor(names[name], values, raw_dtype=types[name])


def _llama_names(model: ModelConfig, names: Iterable[str]) -> dict[str, str]:
    """llama.cpp's name of each tensor, by transformers' name."""
    known = gguf.get_tensor_name_map(_ARCHITECTURE, model.num_hidden_layers)
    return {name: known.get_name(name, try_suffixes=(".weight",)) for name in names}
