"""`results.json`: everything a run achieved, for programs. `docs/report.md` documents the keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from keylm.common.errors import UserError
from keylm.common.files import read_json, sha256
from keylm.common.hardware import describe_hardware
from keylm.data.cleaning.cleaner import CONTAMINATED
from keylm.data.prepare.outputs import missing_sources, source_folder
from keylm.evaluate import provenance
from keylm.instructions.splits import SPLITS
from keylm.model.flops import num_parameters
from keylm.model.transformer import KeyLM
from keylm.recipe import MIXTURE_STAGES
from keylm.run import Run
from keylm.stages import TRAINING_STAGES, completed_training_stages, stages_of

_SPLIT_KEYS = (
    "instruction_accuracy",
    "standard_error",
    "instructions",
    "not_significantly_above",
    "topic_mentioned",
    "topic_match",
    "truncated",
    "looping",
    "prompt_copy",
    "reference_prompt_copy",
    "num_words",
    "bits_per_byte",
)


def collect_results(run: Run) -> dict[str, Any]:
    """What the stages of a run left, as one dictionary; stages that are not done yet leave their parts empty."""
    names = [stage.name for stage in stages_of(run)]
    imported = {stage: source for stage in names if (source := run.imported_from(stage))}
    stages = {stage: run.metadata(stage) for stage in names if run.is_finished(stage) and stage not in imported}
    # The meta device has shapes only: counting parameters takes no memory.
    with torch.device("meta"):
        parameters = num_parameters(KeyLM(run.recipe.model))
    dropped = dropped_documents(run)
    return {
        "name": run.recipe.name,
        "title": run.recipe.title or run.recipe.name,
        "parameters": parameters,
        "imported": imported,
        "stages": {
            stage: {key: metadata[key] for key in ("seconds", "peak_memory_bytes")}
            for stage, metadata in stages.items()
        },
        "tokens": {"prepared": _prepared_tokens(stages.get("prepare", {})), "trained": _trained_tokens(stages)},
        "missing": {stage: missing_sources(run, stage) for stage in MIXTURE_STAGES},
        "dropped": {
            stage: {name: row["counts"] for name, row in sources.items() if row["counts"]}
            for stage, sources in dropped.items()
        },
        "bits_per_byte": load_measurement(run, "bits_per_byte"),
        "sft_answers": load_measurement(run, "sft_answers"),
        "instruction_following": _instruction_following(load_measurement(run, "instruction_following")),
        "typo_robustness": load_measurement(run, "typo_robustness"),
        "lm_eval": {
            task: {**row, "contaminated": _num_contaminated(run, task, dropped)}
            for task, row in load_measurement(run, "lm_eval").items()
        },
        "seed": run.recipe.seed,
        "weights": {stage: sha256(run.weights(stage)) for stage in completed_training_stages(run)},
        "versions": provenance.versions(),
        "machine": describe_hardware(),
    }


def load_measurement(run: Run, name: str) -> dict[str, Any]:
    """A measurement of the eval stage, such as `bits_per_byte` (see `stage.run_eval`); empty if there is none yet.

    Raises:
        UserError: The stage is done, but the file is missing: it was deleted, or an older version named it differently.
    """
    path = run.stage("eval") / f"{name}.json"
    if path.exists():
        return read_json(path)
    if run.is_finished("eval"):
        raise UserError(
            f"{path} is missing: delete {path.with_name('stage.json')} and run `keylm eval {run.folder}` to measure it"
        )
    return {}


def last_finetuned_stage(scores: dict[str, Any]) -> str | None:
    """The last training stage after pretraining that has scores; None if there is none."""
    return next((stage.name for stage in reversed(TRAINING_STAGES[1:]) if stage.name in scores), None)


def scores_by_split(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One stage's instruction following on every split that was measured, the headline first.

    `baselines` is reduced to the accuracy of each baseline on the same requests.
    """
    headline, *_ = SPLITS
    return {
        name: {
            **{key: scores[key] for key in _SPLIT_KEYS},
            "baselines": {
                baseline: baseline_scores["instruction_accuracy"]
                for baseline, baseline_scores in scores["baselines"].items()
            },
        }
        for name, scores in {headline: row, **row.get("splits", {})}.items()
    }


def dropped_documents(run: Run) -> dict[str, dict[str, dict[str, Any]]]:
    """`counts` and `samples` of the documents that cleaning dropped, by stage and source."""
    dropped: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in MIXTURE_STAGES:
        for source in run.recipe.sources_of(stage):
            path = source_folder(run, stage, source.name) / "dropped.json"
            if path.exists():
                dropped.setdefault(stage, {})[source.name] = read_json(path)
    return dropped


def _num_contaminated(run: Run, task: str, dropped: dict[str, dict[str, dict[str, Any]]]) -> int | None:
    """Training documents dropped because they overlap with the task's items; None if that was not checked."""
    if task not in run.recipe.data.clean.decontaminate or run.base_model:
        return None
    reason = f"{CONTAMINATED}: {task}"
    counts: Iterator[int] = (
        count
        for sources in dropped.values()
        for row in sources.values()
        for name, count in row["counts"].items()
        # The tasks of a group such as `mmlu` are counted together.
        if name == reason or name.startswith(f"{reason}_")
    )
    return sum(counts)


def _prepared_tokens(metadata: dict[str, Any]) -> dict[str, Any]:
    """Tokens in the stores, by stage, source and split."""
    return {
        stage: {
            name: {split: source[split]["tokens"] for split in ("train", "validation")}
            for name, source in metadata[stage].items()
            if "missing" not in source
        }
        for stage in MIXTURE_STAGES
        if stage in metadata
    }


def _trained_tokens(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Tokens that were trained on, by stage and source."""
    return {
        stage: {name: row["tokens"] for name, row in stages[stage]["mixture"].items()}
        for stage in MIXTURE_STAGES
        if stage in stages
    }


def _instruction_following(measured: dict[str, Any]) -> dict[str, Any]:
    """Scores by stage without samples, and once the baselines, which are the same for every stage."""
    results = {
        stage: {
            # Conversations are for the report: results.json is read by programs.
            **{key: value for key, value in row.items() if key not in ("samples", "baselines")},
            "splits": scores_by_split(row),
        }
        for stage, row in measured.items()
    }
    baselines: dict[str, Any] = next((row["baselines"] for row in measured.values()), {})
    return {**results, "baselines": baselines}
