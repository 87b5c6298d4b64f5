"""The measurements of a run, as tables for its card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keylm.common.files import read_json
from keylm.evaluate import reference_scores
from keylm.evaluate.results import scores_by_split, tuned_results
from keylm.evaluate.significance import remark
from keylm.run import Run

_TUNED = {"sft": "after tuning", "dpo": "after preference tuning", "grpo": "after reinforcement"}
_CODERS = {"pretrain": "after pretraining", **_TUNED, "xz": "`xz -9e`"}


def scores_section(run: Run) -> str:
    """The card's section on scores; empty where nothing was measured."""
    tables = {"bits_per_byte": _bits_per_byte, "instructions": _instructions, "tasks": _tasks}
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
    tuned = values[tuned_results(values) or "sft"]
    models = {title: values[stage] for stage, title in _TUNED.items() if stage in values}
    answers = {"before tuning": values["pretrain"], **models, **tuned["null_answers"]}
    rows = [[name, f"{row['followed']:.1%}", f"{row['on_topic']:.1%}"] for name, row in answers.items()]
    head = ["answers", "instructions followed", "topic named"]
    title = f"{tuned['instructions']:,} generated instructions, in phrasings and on topics that were never trained on"
    return (
        f"{title}; the last rows are answers that a program without any understanding gives:\n\n"
        f"{markdown_table(head, *rows)}\n"
        f"After tuning, by what the requests have that training had not:\n\n{_splits(tuned)}"
    )


def _splits(tuned: dict[str, Any]) -> str:
    """Scores beside the best null answer, and what the answers are like."""
    rows = [
        [
            f"{name} ({row['instructions']:,})",
            f"{row['followed']:.1%} ± {row['standard_error']:.1%}",
            f"{max(row['null_answers'].values()):.1%}{_doubt(row)}",
            *(f"{row[key]:.1%}" for key in ("on_topic", "unfinished", "looped", "echoed")),
        ]
        for name, row in scores_by_split(tuned).items()
    ]
    head = ["instructions", "followed", "best null answer", "topic named", "cut off", "loops", "echo"]
    return markdown_table(head, *rows)


def _doubt(row: dict[str, Any]) -> str:
    return f" ({remark(row['within_noise_of'])})" if row["within_noise_of"] else ""


def _tasks(values: dict[str, Any]) -> str:
    rows = [
        [name, metric, f"{score:.2%}", f"{row['standard_errors'].get(metric, 0):.2%}", _chance(row, metric)]
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
        [row.claim.title, f"{row.claim.share:.2%}", f"{row.score:.2%} ± {row.error:.2%}", row.remark]
        for row in reference_scores.beside(values)
    ]
    return (
        f"\nBeside the published model:\n\n{markdown_table(['score', reference_scores.NAME, 'here', ''], *rows)}"
        if rows
        else ""
    )


def _chance(row: dict[str, Any], metric: str) -> str:
    null = row["null"].get(metric, {})
    return f"{null['chance']:.2%}" if "chance" in null else ""
