"""Fingerprints: a hash, for each stage, of all settings that its output depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from keylm.recipe.base import Config
from keylm.recipe.recipe import Recipe

NON_OUTPUT_FIELDS = {
    "checkpoint_minutes",
    "keep_last",
    "permanent_every",
    "max_skipped_steps",
    "parallel",
    "timeout_seconds",
}
"""Training settings that do not change the weights. They may change when a run is resumed."""

_MIXTURE_FIELDS = {"weight", "category", "max_epochs"}
"""Source settings that only training depends on: they decide how often a source is read, not what it contains."""


def fingerprint(*values: Any) -> str:
    """Sixteen hex digits: the start of the SHA-256 of `values` as JSON."""
    # Sorted keys: the order in which a recipe gives its keys must not count.
    text = json.dumps(values, sort_keys=True, default=lambda part: part.model_dump(mode="json"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stage_inputs(recipe: Recipe) -> dict[str, Any]:
    """The settings that each stage's output depends on, besides those of the stages before it."""
    # Neither the license (it is for the model card) nor what to do without a source changes the text of the source.
    not_text = {"license", "on_missing", *_MIXTURE_FIELDS}
    sources = [
        source.model_dump(mode="json", exclude=not_text) for source in (*recipe.data.sources, *recipe.sft.sources)
    ]
    mixture = {source.name: source.model_dump(mode="json", include=_MIXTURE_FIELDS) for source in recipe.data.sources}
    return {
        # A fingerprint covers the stages before, so the first stage has the seed and all that decides on the text.
        "tokenizer": [
            recipe.seed,
            recipe.model.vocab_size,
            recipe.tokenizer,
            sources,
            recipe.data.model_dump(mode="json", exclude={"sources"}),
        ],
        # With a limit on a source, every task takes its share of it, so the number of tasks changes what is read.
        "prepare": [recipe.prepare.tasks],
        "pretrain": [recipe.model, _training_fields(recipe.train), mixture],
        "sft": [_training_fields(recipe.sft)],
        "dpo": [_training_fields(recipe.dpo)],
        "grpo": [_training_fields(recipe.grpo)],
        # `data` says where the test items lie on this machine, not what they are.
        "eval": [recipe.eval.model_dump(mode="json", exclude={"data"})],
        "export": [recipe.name, recipe.title, recipe.export],
    }


def _training_fields(section: Config | None) -> dict[str, Any] | None:
    return section.model_dump(mode="json", exclude=NON_OUTPUT_FIELDS) if section else None
