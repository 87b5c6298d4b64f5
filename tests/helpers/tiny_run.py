"""A run with random SFT weights, for tests that need any model: export, serving, llama.cpp."""

from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from keylm import run as runs
from keylm.recipe import Recipe
from keylm.tokenizer.training import train_tokenizer

TEXTS = [
    *topics.values(),
    "Naïve café, straße, Москва, 東京, مرحبا, 🦊🐕‍🦺: it's what they'd say, isn't it? I'LL 3.14159 1000000\n\n" * 50,
    "<|im_start|>user\nA control string is text to the trainer.<|im_end|>\n" * 50,
]
SIZES = {
    "vocab_size": 2000,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "rope_theta": 5000.0,
}


def tiny_recipe(pre_tokenizer: str = "qwen2", **parts: dict) -> Recipe:
    """The recipe of a model with 340,000 parameters; `parts` replaces whole sections."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "model": SIZES,
            "tokenizer": {"pre_tokenizer": pre_tokenizer},
            "train": {"sequence_length": 128, "batch_tokens": 256, "micro_batch_tokens": 128},
            "sft": {"sequence_length": 128, "batch_tokens": 256, "micro_batch_tokens": 128},
            "export": {"gguf": ["F32", "F16", "BF16", "Q8_0"]},
            **parts,
        }
    )


def tiny_run(folder: Path, pre_tokenizer: str = "qwen2", **parts: dict) -> runs.Run:
    """A run in `folder` with a tokenizer and random SFT weights.

    The weights are larger than those of a freshly initialized model, so that greedy choices are rarely near ties, which
    the rounding of two engines may resolve differently.
    """
    run = runs.create(tiny_recipe(pre_tokenizer, **parts), folder)
    tokenizer = train_tokenizer(TEXTS, SIZES["vocab_size"], pre_tokenizer)
    tokenizer.save(run.stage("tokenizer"), SIZES["max_position_embeddings"])
    torch.manual_seed(0)
    sizes = run.recipe.model.transformers_fields
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=False, initializer_range=0.2))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    run.weights("sft").parent.mkdir(parents=True)
    save_file(model.state_dict(), run.weights("sft"))
    run.begin("export")
    return run
