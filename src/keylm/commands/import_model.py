"""`keylm import`: make a run of a transformers model with this graph, to tune, evaluate, export or serve it.

A model with another graph, or with a tokenizer that llama.cpp would read differently, is rejected with the field that
differs. It could load and answer, only worse, and nobody would notice.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rich.markup import escape
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from tokenizers import models
from torch import Tensor

from keylm import run as runs
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.files import read_json, refuse_lfs_pointer, write_json
from keylm.model.transformer import weight_shapes
from keylm.recipe import MIXTURE_STAGES, Recipe
from keylm.recipe.loading import read_recipe_values, validate_recipe
from keylm.recipe.model import ModelConfig
from keylm.run import IMPORTED, Run
from keylm.shipped import ShippedModel, shipped_model
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, SPLIT_REGEX, Tokenizer, byte_level_backend
from keylm.train.checkpoint import save_weights

_FILES = ["config.json", "generation_config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json"]

_GRAPH = {"model_type": "qwen3", "hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
"""Fields of `config.json` with the only value that this graph allows. A field that is absent has that value."""
_ROPE = {"rope_type": "default"}
"""The same for its rotary embedding."""
_BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "byte_fallback": False,
    "ignore_merges": False,
}
"""The same for `model` in `tokenizer.json`."""
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "max_position_embeddings"),
)
"""Fields that `config.json` must have."""


def import_model(source: str, folder: Path | None = None, changes: Path | None = None) -> Run:
    """Make a run with the weights and the tokenizer of a transformers model.

    Its `tokenizer` stage is done; so are `pretrain` and `sft`, unless the recipe has sources to train on. The weights
    are converted to float32, and an output head that is tied to the embedding becomes a copy of it.

    Args:
        source: A transformers folder, or the name of a shipped model or of one on the Hugging Face hub.
        folder: The run folder; `runs/NAME` by default.
        changes: A file with what the recipe has besides the model: name, sources, lengths.

    Raises:
        UserError: there is no such model, it has another graph or tokenizer, the run exists already, or another command
            is at work in it.
    """
    shipped = shipped_model(source)
    model_folder = shipped.folder if shipped else _locate_model(source)
    names = (shipped.name, shipped.title) if shipped else _names(source)
    recipe = _derive_recipe(model_folder, *names, changes)
    tokenizer = _load_tokenizer(model_folder, recipe)
    weights = _load_weights(model_folder, recipe)

    run = Run(folder or Path("runs") / recipe.name, recipe)
    with run.lock():
        if (run.stage("tokenizer") / "begun.json").exists():
            raise UserError(f"{run.folder} is a run already: name another one with --run")
        runs.create(recipe, run.folder)
        tokenizer.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
        for stage in (IMPORTED, *MIXTURE_STAGES):
            save_weights(run.weights(stage).parent, weights)
            _mark_as_imported(run, stage, source, mixture={})
        # Last, because its mark is what makes the folder a run that exists: an import that was interrupted can be
        # repeated.
        _mark_as_imported(run, "tokenizer", source, **({"shipped": True} if shipped else {}))
    return run


def show_next_steps(run: Run) -> None:
    """Print what can be done with an imported model."""
    names = ", ".join(source.name for stage in MIXTURE_STAGES for source in run.recipe.sources_of(stage))
    if names:
        steps = {f"train it on {names}, evaluate and export it:": f"keylm run {run.folder}"}
    else:
        train = f"keylm run {run.folder}"
        chats, texts = (f"[{{name: {name}, type: files, path: {name}}}]" for name in ("chats.jsonl", "texts"))
        steps = {
            "evaluate and export it as it is, then chat:": f"{train} && keylm chat {run.folder}",
            "teach it your conversations (`keylm docs sources` has the forms):": f"{train} --set sft.tokens=2e5 "
            f"--set 'sft.sources={chats}'",
            "teach it your texts:": f"{train} --set train.tokens=1e6 --set 'data.sources={texts}'",
        }
    for purpose, command in steps.items():
        console.print(f"  {purpose}\n    [bold]{escape(command)}[/]", soft_wrap=True)


def open_shipped(model: ShippedModel, folder: Path | None = None) -> Run:
    """Open the run with the weights of a shipped model, which is imported if there is none.

    Args:
        model: The model.
        folder: The run folder; `runs/NAME` by default.

    Raises:
        UserError: this installation lacks the model, or the folder is another run.
    """
    run_folder = folder or Path("runs") / model.name
    if (run_folder / "recipe.yaml").exists():
        run = runs.open_run(run_folder)
        if run.imported_from("tokenizer") == model.name:
            return run
    return import_model(model.name, run_folder)


def _locate_model(source: str) -> Path:
    """The folder with the model, which is downloaded if `source` is a name on the hub."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except Exception as error:  # the hub's errors differ from version to version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{source} is neither a folder nor a model that the hub gives us: {reason}") from error


def _mark_as_imported(run: Run, stage: str, source: str, **metadata: Any) -> None:
    write_json(run.stage(stage) / "begun.json", {"stage": stage, "imported": source})
    run.finish(stage, {"imported": source, "seconds": 0.0, "peak_memory_bytes": 0, **metadata})


def _names(source: str) -> tuple[str, str]:
    """The name of a recipe and its title, for a model that is not ours."""
    title = Path(source).resolve().name if Path(source).is_dir() else source.rpartition("/")[2]
    return re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._") or "imported", title


def _derive_recipe(model_folder: Path, name: str, title: str, changes: Path | None) -> Recipe:
    """A recipe with the sizes of the imported model, training settings that suit a first fine-tuning, and `changes`."""
    path = model_folder / "config.json"
    config = _read_model_file(path)
    if missing := [key for key in _SIZES if key not in config]:
        raise UserError(f"{path} has no {missing[0]}: import a folder that transformers saved")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _check_values(path, config, _GRAPH)
    _check_values(path, {"rope_type": rope.get("rope_type", rope.get("type", "default"))}, _ROPE)
    # transformers 5 writes the base of the rotary embedding to `rope_parameters`, transformers 4 to the top level.
    # A config.json without `head_dim` means 128, transformers' default.
    model = {"head_dim": 128, **{key: config[key] for key in ModelConfig.model_fields if key in config}}
    model["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", 10_000.0))

    generation_path = model_folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.exists() else {}
    # The largest power of two within the context.
    sequence_length = min(2048, 1 << int(model["max_position_embeddings"]).bit_length() - 1)
    training = {
        "sequence_length": sequence_length,
        "tokens": 1_000_000,
        "batch_tokens": 16_384,
        "optimizer": {"learning_rate_scale": 0.25, "weight_decay": 0.01},
    }
    values = {
        "name": name,
        "title": title,
        "model": model,
        # Of few conversations, enough to see how training goes.
        "data": {"sources": [], "validation_fraction": 0.05},
        "tokenizer": {"pre_tokenizer": _pre_tokenizer_name(model_folder)},
        "train": training,
        "sft": {**training, "sources": []},
        "export": {
            key: generation[key] for key in ("temperature", "repetition_penalty") if generation.get(key) is not None
        },
    }
    if changes:
        own = read_recipe_values(changes)
        # The title is another model's name.
        values = _merge({**values, **({"title": ""} if "name" in own else {})}, own)
    return validate_recipe(values, changes or path)


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `changes`, section by section."""
    merged = dict(values)
    for key, value in changes.items():
        old = values.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _pre_tokenizer_name(model_folder: Path) -> str:
    """The name by which llama.cpp knows the tokenizer's split regex."""
    path = model_folder / "tokenizer.json"
    theirs = _without_offsets(_read_model_file(path)["pre_tokenizer"])
    for name in SPLIT_REGEX:
        ours = json.loads(byte_level_backend(models.BPE(), name).to_str())["pre_tokenizer"]
        if theirs == _without_offsets(ours):
            return name
    raise UserError(f"{path} splits text in a way of its own, not as one of {', '.join(SPLIT_REGEX)} does")


def _without_offsets(part: Any) -> Any:
    """A part of `tokenizer.json` without `trim_offsets`, which does not change the tokens."""
    if isinstance(part, dict):
        return {key: _without_offsets(value) for key, value in part.items() if key != "trim_offsets"}
    return [_without_offsets(value) for value in part] if isinstance(part, list) else part


def _load_tokenizer(model_folder: Path, recipe: Recipe) -> Tokenizer:
    """Load the tokenizer, after checking that it is a plain byte-level BPE with our control tokens."""
    path = model_folder / "tokenizer.json"
    saved = _read_model_file(path)
    _check_values(path, saved["model"], _BPE)
    if saved.get("normalizer") or (saved.get("decoder") or {}).get("type") != "ByteLevel":
        raise UserError(f"{path} changes text before or after its tokens, which a byte-level tokenizer does not")
    if _adds_tokens(saved.get("post_processor")):
        raise UserError(f"{path} puts tokens around every text, and training here puts none")
    added = sorted(token["content"] for token in saved["added_tokens"])
    if added != sorted(CONTROL_TOKENS):
        raise UserError(
            f"{path} has the control tokens {', '.join(added) or 'none'}; KeyLM's are {', '.join(CONTROL_TOKENS)}"
        )
    backend = Backend.from_file(str(path))
    # A fine-tuning may leave its own settings in the file, and text would be cut or padded without a word.
    backend.no_truncation()
    backend.no_padding()
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size != recipe.model.vocab_size:
        raise UserError(f"{path} has {tokenizer.vocab_size:,} tokens, and the model {recipe.model.vocab_size:,}")
    return tokenizer


def _adds_tokens(post_processor: dict[str, Any] | None) -> bool:
    """Whether a post-processor of `tokenizer.json` puts tokens around a text."""
    match post_processor:
        case None | {"type": "ByteLevel"}:
            return False
        case {"type": "Sequence", "processors": list(processors)}:
            return any(map(_adds_tokens, processors))
        case {"type": "TemplateProcessing", "single": list(pieces)}:
            # transformers 5 writes one that consists of the text alone.
            return [list(piece) for piece in pieces] != [["Sequence"]]
    return True


def _load_weights(model_folder: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Load the tensors of all safetensors files in float32, under transformers' names, and check their shapes."""
    weights = {
        name: tensor.float() for path in _weight_files(model_folder) for name, tensor in _load_tensors(path).items()
    }
    is_tied = _read_model_file(model_folder / "config.json").get("tie_word_embeddings")
    if is_tied and "lm_head.weight" not in weights:
        # A clone, because safetensors refuses tensors that share memory.
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    expected = weight_shapes(recipe.model)
    actual = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            raise UserError(
                f"{name} in {model_folder} is {actual.get(name, 'absent')}, "
                f"and by its config.json it is {expected.get(name, 'not of this graph')}"
            )
    return weights


def _weight_files(model_folder: Path) -> list[Path]:
    """The file with the weights, or those that their index names; others, such as an adapter's, are not the model."""
    single, index = model_folder / "model.safetensors", model_folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        return [model_folder / name for name in sorted(set(_read_model_file(index).get("weight_map", {}).values()))]
    if (model_folder / "adapter_config.json").exists():
        raise UserError(f"{model_folder} holds an adapter (LoRA), not a model: merge it into its model and save that")
    raise UserError(
        f"{model_folder} has no model.safetensors: save the model with `save_pretrained(folder)` of transformers, "
        f"which no longer writes pytorch_model.bin"
    )


def _load_tensors(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise UserError(f"{path} is missing, although the index of the weights names it: download it again")
    refuse_lfs_pointer(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or was cut off ({error}): download it again") from error
    return tensors


def _check_values(path: Path, values: dict[str, Any], allowed: dict[str, Any]) -> None:
    """Check that every field of `allowed` that is present has its only allowed value."""
    for key, only in allowed.items():
        given = values.get(key, only)
        # Some versions of tokenizers write an empty string for None.
        if given != only and not (given == "" and only is None):
            raise UserError(f"{path} has {key} {json.dumps(given)}, and here it can only be {json.dumps(only)}")


def _read_model_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path.parent} has no {path.name}: import a folder that transformers loads")
    refuse_lfs_pointer(path)
    return read_json(path)
