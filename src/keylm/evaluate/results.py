"""`results.json`: what a run came to, in numbers that a program can read. `docs/report.md` lists the keys."""

from __future__ import annotations

from typing import Any

import torch

from keylm.common.files import read_json, sha256, write_json
from keylm.common.hardware import describe_hardware
from keylm.data.cleaning.cleaner import CONTAMINATED
from keylm.data.prepare.outputs import missing_sources
from keylm.evaluate import provenance
from keylm.instructions.splits import SPLITS
from keylm.model.flops import num_parameters
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig
from keylm.run import Run
from keylm.stages import TRAINING_STAGES, completed_training_stages, stages_of

_NOT_SCORES = ("samples", "null_answers", "splits")
_OF_A_SPLIT = (
    *("followed", "standard_error", "instructions", "within_noise_of", "on_topic"),
    *("topical", "unfinished", "looped", "echoed", "echoed_by_examples", "words", "bits_per_byte"),
)


def build_results(run: Run) -> dict[str, Any]:
    """Write `results.json` into the run's folder and return what it says; what is not done yet is left empty."""
    names = [stage.name for stage in stages_of(run)]
    imported = {stage: origin for stage in names if (origin := run.imported_from(stage))}
    stages = {stage: run.metadata(stage) for stage in names if run.is_done(stage) and stage not in imported}
    results = {
        "name": run.recipe.name,
        "title": run.recipe.title or run.recipe.name,
        "parameters": _num_parameters(run.recipe.model),
        "imported": imported,
        "stages": {stage: _costs(facts) for stage, facts in stages.items()},
        "tokens": {"prepared": _prepared(stages.get("prepare", {})), "trained": _trained(stages)},
        "missing": {stage: missing_sources(run, stage) for stage in ("pretrain", "sft")},
        "dropped": {stage: _counts(sources) for stage, sources in dropped_counts(run).items()},
        "bits_per_byte": measured_results(run, "bits_per_byte"),
        "answers": measured_results(run, "answers"),
        "instructions": _instructions(measured_results(run, "instructions")),
        "typos": measured_results(run, "typos"),
        "tasks": {
            task: {**row, "contaminated": _contaminated(run, task)}
            for task, row in measured_results(run, "tasks").items()
        },
        "seed": run.recipe.seed,
        "weights": {stage: sha256(run.weights(stage)) for stage in completed_training_stages(run)},
        "versions": provenance.versions(),
        "machine": describe_hardware(),
    }
    write_json(run.folder / "results.json", results)
    return results


def tuned_results(scores: dict[str, Any]) -> str | None:
    """The last training after pretraining whose weights were scored."""
    return next((stage for stage in reversed([stage.name for stage in TRAINING_STAGES[1:]]) if stage in scores), None)


def measured_results(run: Run, name: str) -> dict[str, Any]:
    """What the eval stage found: `bits_per_byte`, `answers`, `instructions`, `typos` or `tasks`; empty without it."""
    path = run.stage("eval") / f"{name}.json"
    return read_json(path) if path.exists() else {}


def scores_by_split(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One stage's scores on every split that it was asked, the headline first, and what null answers follow there."""
    parts = {next(iter(SPLITS)): row, **row.get("splits", {})}
    return {
        name: {
            **{key: part[key] for key in _OF_A_SPLIT},
            "null_answers": {null: scores["followed"] for null, scores in part["null_answers"].items()},
        }
        for name, part in parts.items()
    }


def dropped_counts(run: Run) -> dict[str, dict[str, dict[str, Any]]]:
    """`counts` and `samples` of what cleaning dropped, by what it was for and by source; whole sources left out."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in ("pretrain", "sft"):
        names = [source.name for source in run.recipe.sources_of(stage)]
        paths = {name: run.stage("prepare") / stage / name / "dropped.json" for name in names}
        rows = {name: read_json(path) for name, path in paths.items() if path.exists()}
        found |= {stage: rows} if rows else {}
    return found


def _contaminated(run: Run, task: str) -> int | None:
    """Documents that were dropped because they share words with items of the task; None where nobody looked.

    Of a group of tasks such as `mmlu`, its parts are counted.
    """
    if task not in run.recipe.data.clean.decontaminate or run.imported_from("pretrain"):
        return None
    reason = f"{CONTAMINATED}: {task}"
    counts: list[dict[str, int]] = [row["counts"] for rows in dropped_counts(run).values() for row in rows.values()]
    return sum(row[each] for row in counts for each in row if each == reason or each.startswith(f"{reason}_"))


def _counts(sources: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {name: row["counts"] for name, row in sources.items() if row["counts"]}


def _num_parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return num_parameters(KeyLM(config))


def _costs(facts: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": facts["seconds"], "peak_memory_bytes": facts["peak_memory_bytes"]}


def _prepared(facts: dict[str, Any]) -> dict[str, Any]:
    """Tokens of each source, by what they are for and by side."""
    return {
        part: {
            name: {side: source[side]["tokens"] for side in ("train", "validation")}
            for name, source in facts[part].items()
            if "missing" not in source
        }
        for part in ("pretrain", "sft")
        if part in facts
    }


def _trained(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Tokens of each source that were learned from."""
    return {
        stage: {name: row["tokens"] for name, row in stages[stage]["mixture"].items()}
        for stage in ("pretrain", "sft")
        if stage in stages
    }


def _instructions(found: dict[str, Any]) -> dict[str, Any]:
    """Scores by stage, and those of the null answers, which do not depend on the stage."""
    scores = {stage: _scores(row) for stage, row in found.items()}
    nulls: dict[str, Any] = next((row["null_answers"] for row in found.values()), {})
    return {**scores, "null_answers": nulls}


def _scores(row: dict[str, Any]) -> dict[str, Any]:
    """What a program wants to know of one stage's scores."""
    return {**{key: row[key] for key in row if key not in _NOT_SCORES}, "splits": scores_by_split(row)}
