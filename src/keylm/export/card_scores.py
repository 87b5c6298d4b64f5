"""The scores of a run, as tables for its model card."""

from __future__ import annotations

from typing import Any

from keylm.common.files import read_json
from keylm.evaluate.reference_scores import compare_with_reference, reference_model
from keylm.evaluate.results import last_finetuned_stage, scores_by_split
from keylm.evaluate.significance import significance_note
from keylm.export.markdown import markdown_table
from keylm.run import Run
from keylm.stages import TRAINING_STAGES

_LABELS = {stage.name: stage.label for stage in TRAINING_STAGES}


def scores_section(run: Run) -> str:
    """The card's section of scores; empty if nothing was evaluated."""
    tables = {"bits_per_byte": _bits_per_byte, "instruction_following": _instructions, "lm_eval": _tasks}
    parts = [table(values) for name, table in tables.items() if (values := measured(run, name))]
    return "\n".join(["\n## Scores\n", *parts]) if parts else ""


def measured(run: Run, name: str) -> dict[str, Any]:
    """A measurement of the eval stage, such as `lm_eval`; empty if there is none."""
    path = run.stage("eval") / f"{name}.json"
    return read_json(path) if path.exists() else {}


def _bits_per_byte(values: dict[str, Any]) -> str:
    labels = {**_LABELS, "xz": "`xz -9e`"}
    columns = [name for name in labels if any(name in row for row in values.values())]
    rows = [[name, f"{row['bytes']:,}", *(row.get(column, "") for column in columns)] for name, row in values.items()]
    header = ["source", "bytes", *(labels[column] for column in columns)]
    return "Bits per byte of held-out text (lower is better):\n\n" + markdown_table(header, *rows)


def _instructions(values: dict[str, Any]) -> str:
    """Scores of each training stage and of the baselines, then those of the last stage by split."""
    last = last_finetuned_stage(values) or TRAINING_STAGES[0].name
    tuned = values[last]
    models = {label: values[stage] for stage, label in _LABELS.items() if stage in values}
    answers = {**models, **tuned["baselines"]}
    rows = [
        [name, f"{row['instruction_accuracy']:.1%}", f"{row['topic_mentioned']:.1%}"] for name, row in answers.items()
    ]
    header = ["answers", "instructions followed", "topic named"]
    return (
        f"{tuned['instructions']:,} generated instructions, with phrasings and topics that are not in the training "
        f"data. The last rows are trivial baselines:\n\n{markdown_table(header, *rows)}\n"
        f"Scores {_LABELS[last]}, by how the requests differ from those in training (± one standard error):\n\n"
        f"{_splits(tuned)}"
    )


def _splits(tuned: dict[str, Any]) -> str:
    rows = []
    for name, row in scores_by_split(tuned).items():
        doubt = f" ({significance_note(row['not_significantly_above'])})" if row["not_significantly_above"] else ""
        rows.append(
            [
                f"{name} ({row['instructions']:,})",
                f"{row['instruction_accuracy']:.1%} ± {row['standard_error']:.1%}",
                f"{max(row['baselines'].values()):.1%}{doubt}",
                *(f"{row[key]:.1%}" for key in ("topic_mentioned", "truncated", "looping", "prompt_copy")),
            ]
        )
    header = ["instructions", "followed", "best baseline", "topic named", "truncated", "loops", "prompt copy"]
    return markdown_table(header, *rows)


def _tasks(values: dict[str, Any]) -> str:
    rows = []
    for task, row in values.items():
        for metric, score in row["scores"].items():
            error, chance = row["standard_errors"].get(metric), row["baselines"].get(metric, {}).get("chance")
            rows.append([task, metric, f"{score:.2%}", _percent(error), _percent(chance)])
    tables = ["Scores by lm_eval:\n\n" + markdown_table(["task", "metric", "score", "standard error", "chance"], *rows)]
    if comparison := _comparison(values):
        tables.append("Compared with the published model:\n\n" + comparison)
    return "\n".join(tables)


def _comparison(values: dict[str, Any]) -> str:
    """The published scores whose tasks were evaluated here too."""
    rows = []
    for row in compare_with_reference(values):
        # Some metrics of lm_eval have no standard error: a zero would claim perfect precision.
        error = f" ± {_percent(row.standard_error)}" if row.standard_error else ""
        rows.append([row.reference.title, _percent(row.reference.score), f"{_percent(row.score)}{error}", row.verdict])
    return markdown_table(["score", reference_model().name, "this model", "difference"], *rows) if rows else ""


def _percent(share: float | None) -> str:
    """A percentage with two decimals; an empty cell for an unknown number."""
    return "" if share is None else f"{share:.2%}"
