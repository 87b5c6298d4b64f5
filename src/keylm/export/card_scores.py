"""The measurements of a run, as tables for its card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keylm.common.files import read_json
from keylm.evaluate.reference_scores import compare_with_reference, reference_model
from keylm.evaluate.results import last_finetuned_stage, scores_by_split
from keylm.evaluate.significance import significance_note
from keylm.run import Run

_TUNED = {"sft": "after tuning", "dpo": "after preference tuning", "grpo": "after reinforcement"}
_CODERS = {"pretrain": "after pretraining", **_TUNED, "xz": "`xz -9e`"}


def scores_section(run: Run) -> str:
    """The card's section on scores; empty where nothing was measured."""
    tables = {"bits_per_byte": _bits_per_byte, "instruction_following": _instructions, "lm_eval": _tasks}
    paths = {name: run.stage("eval") / f"{name}.json" for name in tables}
    measured = {name: read_json(path) for name, path in paths.items() if path.exists()}
    parts = [tables[name](values) for name, values in measured.items() if values]
    return "\n".join(["\n## Scores\n", *parts]) if parts else ""


def markdown_table(*rows: Iterable[Any]) -> str:
    """A markdown table; the first row is its head."""
    head, *body = [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]) + "\n"


def _bits_per_byte(values: dict[str, Any]) -> str:
    found = {coder: title for coder, title in _CODERS.items() if any(coder in row for row in values.values())}
    rows = [[name, f"{row['bytes']:,}", *(row.get(coder, "") for coder in found)] for name, row in values.items()]
    head = ["source", "bytes", *found.values()]
    return "Bits per byte of held-out text (less is better):\n\n" + markdown_table(head, *rows)


def _instructions(values: dict[str, Any]) -> str:
    tuned = values[last_finetuned_stage(values) or "sft"]
    models = {title: values[stage] for stage, title in _TUNED.items() if stage in values}
    answers = {"before tuning": values["pretrain"], **models, **tuned["baselines"]}
    rows = [
        [name, f"{row['instruction_accuracy']:.1%}", f"{row['topic_mentioned']:.1%}"] for name, row in answers.items()
    ]
    head = ["answers", "instructions followed", "topic named"]
    title = f"{tuned['instructions']:,} generated instructions, in phrasings and on topics that were never trained on"
    return (
        f"{title}; the last rows are answers that a program without any understanding gives:\n\n"
        f"{markdown_table(head, *rows)}\n"
        f"After tuning, by what the requests have that training had not:\n\n{_splits(tuned)}"
    )


def _splits(tuned: dict[str, Any]) -> str:
    """Scores beside the best baseline, and what the answers are like."""
    rows = [
        [
            f"{name} ({row['instructions']:,})",
            f"{row['instruction_accuracy']:.1%} ± {row['standard_error']:.1%}",
            f"{max(row['baselines'].values()):.1%}{_doubt(row)}",
            *(f"{row[key]:.1%}" for key in ("topic_mentioned", "truncated", "looping", "prompt_copy")),
        ]
        for name, row in scores_by_split(tuned).items()
    ]
    head = ["instructions", "followed", "best baseline", "topic named", "cut off", "loops", "echo"]
    return markdown_table(head, *rows)


def _doubt(row: dict[str, Any]) -> str:
    return f" ({significance_note(row['not_significantly_above'])})" if row["not_significantly_above"] else ""


def _tasks(values: dict[str, Any]) -> str:
    rows = [
        [name, metric, f"{score:.2%}", _standard_error(row, metric), _chance(row, metric)]
        for name, row in values.items()
        for metric, score in row["scores"].items()
    ]
    return (
        "lm_eval:\n\n"
        + markdown_table(["task", "metric", "score", "standard error", "chance"], *rows)
        + _published(values)
    )


def _published(values: dict[str, Any]) -> str:
    """The lines of the published card that were measured here too."""
    rows = [
        [
            row.reference.title,
            f"{row.reference.score:.2%}",
            f"{row.score:.2%}" + ("" if row.standard_error is None else f" ± {row.standard_error:.2%}"),
            row.verdict,
        ]
        for row in compare_with_reference(values)
    ]
    return (
        f"\nBeside the published model:\n\n{markdown_table(['score', reference_model().name, 'here', ''], *rows)}"
        if rows
        else ""
    )


def _chance(row: dict[str, Any], metric: str) -> str:
    baselines = row["baselines"].get(metric, {})
    return f"{baselines['chance']:.2%}" if "chance" in baselines else ""


def _standard_error(row: dict[str, Any], metric: str) -> str:
    """Empty where it is unknown."""
    error = row["standard_errors"].get(metric)
    return "" if error is None else f"{error:.2%}"
