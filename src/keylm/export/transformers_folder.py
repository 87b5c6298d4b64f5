"""The transformers folder: `Qwen3ForCausalLM` with a `PreTrainedTokenizerFast`, loaded without remote code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from keylm.common.files import replace_folder, write_json
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def write_transformers_folder(run: Run, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, in transformers 4.57 and 5.

    Args:
        run: The run whose recipe and tokenizer are exported.
        weights: All tensors of the model in bfloat16, under transformers' Qwen3 names.
        folder: The folder to write; an existing one is replaced when the new one is complete.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copyfile(run.stage("tokenizer") / name, partial / name)
    tokenizer = Tokenizer.load(partial)
    write_json(partial / "config.json", model_config(run.recipe, tokenizer))
    write_json(partial / "generation_config.json", generation_config(run.recipe, tokenizer))
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    # safetensors lets only the owner read its files; those of a release are for everybody who may read the others.
    (partial / "model.safetensors").chmod((partial / "config.json").stat().st_mode)
    replace_folder(partial, folder)


def model_config(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of `config.json`."""
    # transformers 4 reads `rope_theta` and `torch_dtype`, transformers 5 reads `rope_parameters` and `dtype`. Each uses
    # its own default for a missing key, without a warning, so both pairs are written.
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        # How the weights were initialized is a matter of training, and not a field of `Qwen3Config`.
        **recipe.model.transformers_fields,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": recipe.model.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **_token_ids(tokenizer),
    }


def generation_config(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of `generation_config.json`: the recipe's sampling defaults and the tokens that end an answer."""
    # transformers rejects a temperature of 0; greedy decoding is its default.
    sampling = {"do_sample": True, "temperature": recipe.export.temperature} if recipe.export.temperature else {}
    return {
        **sampling,
        "repetition_penalty": recipe.export.repetition_penalty,
        "max_new_tokens": recipe.model.max_position_embeddings // 2,
        **_token_ids(tokenizer),
        "eos_token_id": [tokenizer.turn_end, tokenizer.end_of_text],
    }


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.end_of_text,
        "eos_token_id": tokenizer.turn_end,
        "pad_token_id": tokenizer.end_of_text,
    }
