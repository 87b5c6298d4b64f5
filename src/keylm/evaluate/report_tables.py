"""The tables of the report, from `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from keylm.common.units import duration, gib, percent
from keylm.evaluate.pages import Table
from keylm.evaluate.reference_scores import Comparison, ReferenceModel
from keylm.evaluate.significance import significance_note
from keylm.stages import STAGES, TRAINING_STAGES

TITLES = {stage.name: stage.title[0].upper() + stage.title[1:] for stage in STAGES}
LABELS = {stage.name: stage.label for stage in TRAINING_STAGES}
"""What the scores of a stage's weights are called, such as `after SFT`."""

_ERROR = "±\N{NO-BREAK SPACE}s.e."

_METER = Markup('<span class="meter"><i class="requested" style="width:{}"></i><i style="width:{}"></i></span>')

Rows = Mapping[str, Mapping[str, Any]]


def measured_columns(rows: Rows) -> dict[str, str]:
    """By their keys in the rows, the labels of the weights that were measured, and of xz."""
    labels = {**LABELS, "xz": "xz -9e"}
    return {key: label for key, label in labels.items() if any(key in row for row in rows.values())}


def bits_per_byte_table(rows: Rows) -> Table:
    """Bits per byte by source."""
    coders = measured_columns(rows)
    return Table(
        ["source", "bytes", "documents", "tokens", *coders.values()],
        [
            [
                name,
                *(f"{row[key]:,}" for key in ("bytes", "documents", "tokens")),
                *(_number(row.get(key)) for key in coders),
            ]
            for name, row in rows.items()
        ],
        "Sources",
    )


def answers_table(rows: Rows) -> Table:
    """Bits per byte of held-out answers by SFT source."""
    columns = measured_columns(rows)
    return Table(
        ["source", "answers", *columns.values()],
        [[name, str(row["answers"]), *(_number(row.get(key)) for key in columns)] for name, row in rows.items()],
        "Sources",
    )


def constrained_answers_table(rows: Rows) -> Table:
    """What constraints cost real answers."""
    return Table(
        ["source", "answers", "original", "constrained", "increase"],
        [
            [
                name,
                str(row["answers"]),
                _number(row["original"]),
                _number(row["constrained"]),
                percent(row["relative_increase"]),
            ]
            for name, row in rows.items()
        ],
        "Sources",
    )


def dropped_table(sources: Rows) -> Table:
    """Dropped documents of a stage by source and reason."""
    rows = [[name, reason, f"{count:,}"] for name, row in sources.items() for reason, count in row["counts"].items()]
    return Table(["source", "reason", "documents"], rows, "Sources and reasons")


def mixture_table(mixture: Rows) -> Table:
    """Shares of tokens by source, requested and realized."""
    return Table(
        ["source", "share", "requested", "realized", "tokens"],
        [
            [
                name,
                Markup(
                    '<span class="meter"><i class="requested" style="width:{}"></i><i style="width:{}"></i></span>'
                ).format(percent(row["requested"]), percent(row["realized"])),
                percent(row["requested"], 2),
                percent(row["realized"], 2),
                f"{row['tokens']:,}",
            ]
            for name, row in mixture.items()
        ],
        "Sources",
    )


def instruction_table(columns: Rows) -> Table:
    """Instruction following of all weights and baselines."""
    first = next(iter(columns.values()))
    rows = {
        "instruction accuracy": ("instructions", "instruction_accuracy"),
        "prompt accuracy (all its instructions)": ("prompts", "prompt_accuracy"),
        "topic mentioned": ("topic_prompts", "topic_mentioned"),
        "copy tasks": ("copy_tasks", "copy_accuracy"),
    }
    return Table(
        ["score", "count", *columns],
        [
            [label, str(first[count]), *(percent(row[share]) for row in columns.values())]
            for label, (count, share) in rows.items()
        ],
    )


def constraint_table(columns: Rows) -> Table:
    """How many instructions of each constraint are followed."""
    first = next(iter(columns.values()))
    return Table(
        ["constraint", "count", *columns],
        [
            [
                name,
                str(counts["total"]),
                *(str(row["by_constraint"][name]["followed"]) for row in columns.values()),
            ]
            for name, counts in first["by_constraint"].items()
        ],
        "By constraint",
    )


def split_table(splits: Rows) -> Table:
    """Instruction accuracy by held-out split."""
    return Table(
        ["split", "instructions", "accuracy", _ERROR, "compared", "baselines"],
        [
            [
                name,
                str(row["instructions"]),
                percent(row["instruction_accuracy"]),
                percent(row["standard_error"]),
                significance_note(row["not_significantly_above"]),
                _baselines(row["baselines"]),
            ]
            for name, row in splits.items()
        ],
        "Splits",
    )


def answer_statistics_table(splits: Rows) -> Table:
    """What can be said of the answers without a reference."""
    shares = {
        "topic mentioned": "topic_mentioned",
        "topic match": "topic_match",
        "truncated": "truncated",
        "looping": "looping",
        "prompt copy": "prompt_copy",
        "in references": "reference_prompt_copy",
    }
    return Table(
        ["split", *shares, "words", "bits per byte"],
        [
            [
                name,
                *(percent(row[key]) for key in shares.values()),
                f"{row['num_words']:.1f}",
                _number(row["bits_per_byte"]),
            ]
            for name, row in splits.items()
        ],
        "Splits",
    )


def typo_table(typos: Mapping[str, Rows]) -> Table:
    """What typos cost, by the share of characters with one; `typos` has the rows of each label."""
    clean = next(iter(typos.values()))["0%"]
    columns, rows = ["characters with a typo"], [[rate] for rate in next(iter(typos.values()))]
    for name, measured in typos.items():
        if "increase" in clean:
            columns += [f"bits per byte, {name}", "increase"]
        if "instruction_accuracy" in clean:
            columns.append(f"accuracy, {name}")
        for cells, row in zip(rows, measured.values(), strict=True):
            if "increase" in row:
                cells += [_number(row["bits_per_byte"]), f"{row['increase']:.3f} ± {row['standard_error']:.3f}"]
            if "instruction_accuracy" in row:
                cells.append(percent(row["instruction_accuracy"]))
    return Table(columns, rows)


def task_table(tasks: Rows) -> Table:
    """lm_eval tasks, with a row for each metric."""
    rows = []
    for name, task in tasks.items():
        checked = "not checked" if task["contaminated"] is None else f"{task['contaminated']:,}"
        head = [name, f"{task['documents']:,}" if task["documents"] else "", checked]
        for metric, score in task["scores"].items():
            error = task["standard_errors"].get(metric)
            rows.append(
                [
                    *head,
                    metric,
                    percent(score, 2),
                    "" if error is None else percent(error, 2),
                    significance_note(task["not_significantly_above"].get(metric, [])),
                    _baselines(task["baselines"].get(metric, {})),
                ]
            )
    columns = ["task", "documents", "contaminated, dropped", "metric", "score", _ERROR, "compared", "baselines"]
    return Table(columns, rows, "Tasks")


def reference_table(reference: ReferenceModel, comparisons: list[Comparison]) -> Table:
    """Published scores beside ours."""
    return Table(
        ["score", reference.name, "here", _ERROR, "verdict"],
        [
            [
                row.reference.title,
                percent(row.reference.score, 2),
                percent(row.score, 2),
                "" if row.standard_error is None else percent(row.standard_error, 2),
                row.verdict,
            ]
            for row in comparisons
        ],
        "Scores",
    )


def cost_table(stages: Rows) -> Table:
    """Time and memory by stage."""
    return Table(
        ["stage", "time", "peak memory"],
        [[name, duration(row["seconds"]), gib(row["peak_memory_bytes"])] for name, row in stages.items()],
    )


def version_table(versions: Mapping[str, str]) -> Table:
    """Versions of packages."""
    return Table(["package", "version"], [list(row) for row in versions.items()])


def _baselines(scores: Mapping[str, float]) -> str:
    return " · ".join(f"{name} {percent(score)}" for name, score in scores.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
