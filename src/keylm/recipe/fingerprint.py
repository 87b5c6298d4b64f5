"""What each stage is made from: the settings of the recipe that its output depends on, by their keys in the recipe.

A stage's folder records them, so that a changed recipe is noticed and the changed keys can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from keylm.common.errors import name_some
from keylm.recipe.base import Config
from keylm.recipe.recipe import Recipe
from keylm.recipe.sources import SourceConfig

Settings = dict[str, Any]
"""Values as in JSON by their keys in the recipe, with the names of sources in the keys: `data.sources.prose.path`."""

NON_OUTPUT_FIELDS = {
    "checkpoint_minutes",
    "keep_last",
    "permanent_every",
    "max_skipped_steps",
    "deterministic",
    "parallel",
    "timeout_seconds",
}
"""Training settings that do not change the weights. They may change when a run is resumed."""

_MIXTURE_FIELDS = {"weight", "category", "max_epochs"}
"""Source settings that only training depends on: they decide how often a source is read, not what it contains."""

_NOT_TEXT_FIELDS = {"license", "on_missing", *_MIXTURE_FIELDS}
"""Source settings that do not change its text. The license is for the model card."""

_MAX_VALUE_CHARACTERS = 40
_MAX_NAMED_FIELDS = 5


def fingerprint(*values: Any) -> str:
    """Sixteen hex digits: the start of the SHA-256 of `values` as JSON."""
    # Sorted keys: the order in which a recipe gives its keys must not count.
    text = json.dumps(values, sort_keys=True, default=lambda part: part.model_dump(mode="json"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stage_inputs(recipe: Recipe) -> dict[str, Settings]:
    """The settings that each stage's output depends on, those of the stages whose output it reads among them."""
    data, sft = recipe.data.sources, recipe.sft.sources
    # Sources that are made from others are not sampled.
    sampled = [source for source in data if not source.parent_names]
    tokenizer = {**_shared_inputs(recipe), **_source_settings("data.sources", sampled, _is_text)}
    # Pretraining reads what `prepare` made of `data.sources`, and not what it made of the conversations.
    text = {**tokenizer, **_store_inputs(recipe, data), **_source_settings("data.sources", data, _is_text)}
    conversations = {**_store_inputs(recipe, sft), **_source_settings("sft.sources", sft, _is_text)}
    pretrain = {
        **text,
        **_flatten("model", recipe.model),
        **_flatten("train", recipe.train, _is_output),
        **_source_settings("data.sources", data, _MIXTURE_FIELDS.__contains__),
    }
    sft_stage = {
        **pretrain,
        **conversations,
        **_flatten("sft", recipe.sft, lambda field: field != "sources" and _is_output(field)),
        **_source_settings("sft.sources", sft, _MIXTURE_FIELDS.__contains__),
    }
    dpo = {**sft_stage, **(_flatten("dpo", recipe.dpo, _is_output) if recipe.dpo else {"dpo": None})}
    grpo = {**dpo, **(_flatten("grpo", recipe.grpo, _is_output) if recipe.grpo else {"grpo": None})}
    # `data` says where the test items lie on this machine, not what they are.
    evaluation = {**grpo, **_flatten("eval", recipe.eval, lambda field: field != "data")}
    export = {
        **evaluation,
        "name": recipe.name,
        "title": recipe.title,
        **_flatten("export", recipe.export),
        # For the model card.
        **_source_settings("data.sources", data, "license".__eq__),
        **_source_settings("sft.sources", sft, "license".__eq__),
    }
    return {
        "tokenizer": tokenizer,
        "prepare": {**text, **conversations, "data.clean.samples": recipe.data.clean.samples},
        "pretrain": pretrain,
        "sft": sft_stage,
        "dpo": dpo,
        "grpo": grpo,
        "eval": evaluation,
        "export": export,
    }


def source_inputs(recipe: Recipe, stage: str, name: str) -> Settings:
    """The settings that the tokens of one source of `pretrain` or `sft` depend on.

    A document that occurs in an earlier source of the stage is dropped, so the names of those before it are among them.
    """
    sources = recipe.sources_of(stage)
    position = [source.name for source in sources].index(name)
    parents = [source for source in sources if source.name in sources[position].parent_names]
    compared, read = sources[: position + 1], [*parents, sources[position]]
    if recipe.data.clean.near_duplicates:
        # They are found by the text of all sources.
        compared = read = sources
    section = {"pretrain": "data.sources", "sft": "sft.sources"}[stage]
    return {
        **_shared_inputs(recipe),
        **_store_inputs(recipe, [sources[position]]),
        "data.clean.samples": recipe.data.clean.samples,
        section: [source.name for source in compared],
        **_flatten_sources(section, read, _is_text),
    }


def changed_fields(recorded: Settings, now: Settings) -> list[str]:
    """The keys with another value than the recorded one, in the recipe's order, as `model.vocab_size: 4096 -> 512`.

    Of a source that was added or removed only the list of names is given.
    """
    changed = []
    for key in {**now, **recorded}:
        before, after = recorded.get(key), now.get(key)
        is_of_other_source = ".sources." in key and not (key in recorded and key in now)
        if before != after and not is_of_other_source:
            changed.append(f"`{key}: {_shorten(before)} -> {_shorten(after)}`")
    return changed


def name_fields(changed: list[str]) -> str:
    """The first few changed fields in a row, for a sentence."""
    return name_some(changed, _MAX_NAMED_FIELDS)


def _shared_inputs(recipe: Recipe) -> Settings:
    """What decides on the vocabulary and on the text of every source."""
    return {
        "seed": recipe.seed,
        "model.vocab_size": recipe.model.vocab_size,
        **_flatten("tokenizer", recipe.tokenizer),
        "data.validation_fraction": recipe.data.validation_fraction,
        "data.min_document_bytes": recipe.data.min_document_bytes,
        **_flatten("data.clean", recipe.data.clean, lambda field: field not in ("near_duplicates", "samples")),
    }


def _store_inputs(recipe: Recipe, sources: Sequence[SourceConfig]) -> Settings:
    """What decides on the token stores of these sources besides their text."""
    # Of a source with a limit every task takes its share; otherwise the number of tasks changes nothing.
    is_limited = any(source.max_documents or source.max_bytes for source in sources)
    return {
        "data.shard_tokens": recipe.data.shard_tokens,
        "data.clean.near_duplicates": recipe.data.clean.near_duplicates,
        **({"prepare.tasks": recipe.prepare.tasks} if is_limited else {}),
    }


def _is_text(field: str) -> bool:
    return field not in _NOT_TEXT_FIELDS


def _is_output(field: str) -> bool:
    return field not in NON_OUTPUT_FIELDS


def _source_settings(section: str, sources: Sequence[SourceConfig], wanted: Callable[[str], bool]) -> Settings:
    """The wanted fields of sources, and their names, whose order counts."""
    return {section: [source.name for source in sources], **_flatten_sources(section, sources, wanted)}


def _flatten_sources(section: str, sources: Sequence[SourceConfig], wanted: Callable[[str], bool]) -> Settings:
    return {
        key: value for source in sources for key, value in _flatten(f"{section}.{source.name}", source, wanted).items()
    }


def _flatten(section: str, config: Config, wanted: Callable[[str], bool] = lambda _: True) -> Settings:
    """The wanted fields of a section of the recipe and of the sections in it, by their whole keys."""
    values = config.model_dump(mode="json")
    flat: Settings = {}
    for field in type(config).model_fields:
        part = getattr(config, field)
        # The source that another one is made from stands in the section of that one.
        if isinstance(part, Config):
            flat |= _flatten(f"{section}.{field}", part, wanted)
        elif wanted(field):
            flat[f"{section}.{field}"] = values[field]
    return flat


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[:_MAX_VALUE_CHARACTERS]}…"
