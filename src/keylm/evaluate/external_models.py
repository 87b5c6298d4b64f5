"""Models that are not runs: a GGUF file or a transformers folder, such as a published model to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keylm.common.errors import UserError
from keylm.common.files import refuse_lfs_pointer
from keylm.gguf.header import read_gguf_metadata

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from keylm.inference.llama_cpp import LlamaCppGenerator

_MAX_CONTEXT_LENGTH = 2048
"""Tokens per conversation in llama.cpp. No request needs more, and the KV cache of a long context takes gigabytes."""


def is_external(path: Path) -> bool:
    """Whether `path` is a model that is not a run: a GGUF file, or a folder with a `config.json`."""
    return path.suffix == ".gguf" or (path / "config.json").exists()


def load_external(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in float32 and its tokenizer; the weights of a GGUF file are dequantized.

    Raises:
        UserError: The model does not exist, or transformers cannot load it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, utils

    if not path.exists():
        raise UserError(f"{path} does not exist: name a GGUF file or a transformers folder")
    for file in [path] if path.is_file() else path.glob("*.safetensors"):
        refuse_lfs_pointer(file)
    utils.logging.disable_progress_bar()
    source = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        config = AutoConfig.from_pretrained(folder, **source)
        if path.is_file():
            config.update(_gguf_head_dim(path))
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, **source)
    except Exception as error:  # a damaged file makes errors of many types, some of libraries that are not imported
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"transformers cannot load {path}: {reason}") from error
    # Evaluation decodes greedily, with the repetition penalty that the model comes with, as lm_eval itself does.
    shipped = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id if shipped.eos_token_id is None else shipped.eos_token_id,
        repetition_penalty=shipped.repetition_penalty,
    )
    return model.eval(), tokenizer


def external_generator(path: Path, model: PreTrainedModel) -> LlamaCppGenerator:
    """Load a GGUF file into llama.cpp, with its repetition penalty; `model` is the same file in transformers."""
    from keylm.inference.llama_cpp import LlamaCppGenerator

    return LlamaCppGenerator(
        path,
        min(model.config.max_position_embeddings, _MAX_CONTEXT_LENGTH),
        read_gguf_metadata(path).get("general.sampling.penalty_repeat", 1.0),
    )


def _gguf_head_dim(path: Path) -> dict[str, int]:
    """The head size that a GGUF file states; transformers takes the architecture's default instead."""
    sizes = [value for key, value in read_gguf_metadata(path).items() if key.endswith("attention.key_length")]
    return {"head_dim": sizes[0]} if sizes else {}
