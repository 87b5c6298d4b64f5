"""Importing: a transformers folder of this graph becomes a run, to go on from where somebody else stopped.

What differs from Qwen3's graph, or from a tokenizer that llama.cpp reads as we do, is refused by name: a model that
loads and answers worse is the mistake that nobody notices.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from tokenizers import models
from torch import Tensor

from keylm import run as runs
from keylm.common.errors import UserError
from keylm.common.files import read_json, write_json
from keylm.model.transformer import weight_shapes
from keylm.recipe import Recipe
from keylm.recipe.model import ModelConfig
from keylm.run import IMPORTED, Run
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, SPLIT_REGEX, Tokenizer, assemble
from keylm.train.checkpoint import save_weights

_FILES = ["config.json", "generation_config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"]

_GRAPH = {"model_type": "qwen3", "hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
"""Fields of `config.json` with the only value that this graph has; a field that is absent has it."""
_ROPE = {"rope_type": "default"}
_BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "byte_fallback": False,
    "ignore_merges": False,
}


def import_model(source: str, folder: Path | None = None, base: bool = False) -> Run:
    """A run with the weights and the tokenizer of `source`: a transformers folder, or a model's name on the hub.

    Its `tokenizer`, `pretrain` and `sft` stages are done. With `base` the `sft` stage is left to do, on the imported
    weights. Weights become float32; a head that is tied to the embedding becomes a copy of it.

    Raises:
        UserError: there is no such model, it has another graph or tokenizer, or the run has begun already.
    """
    origin = _find(source)
    recipe = _recipe(origin, source)
    tokenizer = _tokenizer(origin, recipe)
    weights = _weights(origin, recipe)
    run = Run(folder or Path("runs") / recipe.name, recipe)
    if (run.stage("tokenizer") / "begun.json").exists():
        raise UserError(f"{run.folder} is a run already: name another one with --run")
    runs.create(recipe, run.folder)
    tokenizer.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
    for stage in ("pretrain",) if base else ("pretrain", "sft"):
        save_weights(run.weights(stage).parent, weights)
        _mark_done(run, stage, source, mixture={})
    _mark_done(run, "tokenizer", source)
    return run


def _find(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except Exception as error:  # the hub's errors differ from version to version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{source} is neither a folder nor a model that the hub gives us: {reason}") from error


def _mark_done(run: Run, stage: str, source: str, **facts: Any) -> None:
    write_json(run.stage(stage) / "begun.json", {"stage": stage, "fingerprint": IMPORTED})
    run.finish(stage, {"imported": source, "seconds": 0.0, "peak_memory_bytes": 0, **facts})


def _recipe(origin: Path, source: str) -> Recipe:
    """The recipe of the imported model; training has lengths that suit a first fine-tuning."""
    config = _read(origin / "config.json")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _require("config.json", origin, config, _GRAPH)
    _require("config.json", origin, {"rope_type": rope.get("rope_type", rope.get("type", "default"))}, _ROPE)
    model = {"head_dim": 128, **{key: config[key] for key in ModelConfig.model_fields if key in config}}
    model["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    longest = min(2048, 1 << int(model["max_position_embeddings"]).bit_length() - 1)
    training = {"sequence_length": longest, "tokens": 10_000_000, "batch_tokens": 65_536}
    title = Path(source).resolve().name if Path(source).is_dir() else source.rpartition("/")[2]
    generation = _read(origin / "generation_config.json") if (origin / "generation_config.json").exists() else {}
    export = {key: generation[key] for key in ("temperature", "repetition_penalty") if key in generation}
    values = {
        "name": re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._") or "imported",
        "title": title,
        "model": model,
        "tokenizer": {"pre_tokenizer": _split_regex(origin)},
        "train": training,
        "sft": {**training, "optimizer": {"learning_rate_scale": 0.25, "weight_decay": 0.01}},
        "export": export,
    }
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin / 'config.json'}: {error.errors()[0]['msg']}") from error


def _split_regex(origin: Path) -> str:
    """The name under which llama.cpp knows the tokenizer's split regex."""
    theirs = _without_offsets(_read(origin / "tokenizer.json")["pre_tokenizer"])
    for name in SPLIT_REGEX:
        if theirs == _without_offsets(json.loads(assemble(models.BPE(), name).to_str())["pre_tokenizer"]):
            return name
    known = ", ".join(SPLIT_REGEX)
    raise UserError(f"{origin / 'tokenizer.json'} splits text in a way of its own, not as one of {known} does")


def _tokenizer(origin: Path, recipe: Recipe) -> Tokenizer:
    path = origin / "tokenizer.json"
    saved = _read(path)
    _require("tokenizer.json", origin, saved["model"], _BPE)
    if saved["normalizer"] or (saved["decoder"] or {}).get("type") != "ByteLevel":
        raise UserError(f"{path} changes text before or after its tokens, which a byte-level tokenizer does not")
    if (saved["post_processor"] or {"type": "ByteLevel"})["type"] != "ByteLevel":
        raise UserError(f"{path} puts tokens around every text, and training here puts none")
    added = sorted(token["content"] for token in saved["added_tokens"])
    if added != sorted(CONTROL_TOKENS):
        raise UserError(
            f"{path} has the control tokens {', '.join(added) or 'none'}; KeyLM's are {', '.join(CONTROL_TOKENS)}"
        )
    tokenizer = Tokenizer(Backend.from_file(str(path)))
    if tokenizer.vocab_size != recipe.model.vocab_size:
        raise UserError(f"{path} has {tokenizer.vocab_size:,} tokens, and the model {recipe.model.vocab_size:,}")
    return tokenizer


def _weights(origin: Path, recipe: Recipe) -> dict[str, Tensor]:
    """The tensors of all safetensors files in float32, under transformers' names."""
    paths = sorted(origin.glob("*.safetensors"))
    tensors = {name: tensor.float() for path in paths for name, tensor in load_file(path).items()}
    if "lm_head.weight" not in tensors and _read(origin / "config.json").get("tie_word_embeddings"):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    shapes, found = weight_shapes(recipe.model), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            there, here = found.get(name, "absent"), shapes.get(name, "not of this graph")
            raise UserError(f"{name} in {origin} is {there}, and by its config.json it is {here}")
    return tensors


def _require(file: str, origin: Path, values: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, only in expected.items():
        given = values.get(key, only)
        if given != only and not (given == "" and only is None):
            raise UserError(
                f"{origin / file} has {key} {json.dumps(given)}, and here it can only be {json.dumps(only)}"
            )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path.parent} has no {path.name}: import a folder that transformers loads")
    return read_json(path)


def _without_offsets(part: Any) -> Any:
    """A tokenizer's JSON without `trim_offsets`, which has no influence on tokens."""
    if isinstance(part, dict):
        return {key: _without_offsets(value) for key, value in part.items() if key != "trim_offsets"}
    return [_without_offsets(value) for value in part] if isinstance(part, list) else part
