"""Tables of scores, laid out for a terminal of 80 columns: one line per score, a legend for the short heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from keylm.common.console import console
from keylm.evaluate.reference_scores import compare_with_reference, reference_model

_NOT_SIGNIFICANT = "n.s."
_LEGEND = f"{_NOT_SIGNIFICANT}: not significantly (2 standard errors) above the best baseline"

_STATISTICS = {
    "topic_mentioned": ("topic", "{:.0%}", "mention the topic"),
    "topic_match": (
        "match",
        "{:.0%}",
        "share more content words with their own prompt than with another (chance: 50%)",
    ),
    "truncated": ("trunc", "{:.0%}", "cut off by the token limit"),
    "looping": ("loop", "{:.0%}", "repeat a phrase 5 times in a row"),
    "prompt_copy": ("copy", "{:.0%}", "share of an answer copied from the prompt"),
    "reference_prompt_copy": ("ref", "{:.0%}", "the same in reference answers"),
    "num_words": ("words", "{:.1f}", "mean length"),
    "bits_per_byte": ("bpb", "{:.2f}", "bits per byte as plain text"),
}
"""Head, format and legend of each statistic of answers."""


def print_instruction_scores(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """Print instruction accuracy by split next to the best baseline, and statistics of the answers.

    Args:
        splits: By split, what `measure_instruction_following` returns.
    """
    table = _table("split", "count", "accuracy", "", "best baseline", "")
    for name, row in splits.items():
        baselines = {baseline: scores["instruction_accuracy"] for baseline, scores in row["baselines"].items()}
        table.add_row(
            name,
            f"{row['instructions']:,}",
            *_with_error(row["instruction_accuracy"], row["standard_error"], digits=1),
            _best_baseline(baselines),
            _NOT_SIGNIFICANT if row["not_significantly_above"] else "",
        )
    console.print(table)
    console.print(_LEGEND, style="dim")
    console.print()
    _print_statistics("split", splits)


def print_task_scores(tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the scores of lm_eval tasks next to the best baseline, and statistics of generated answers.

    Args:
        tasks: By task, what `run_tasks` returns.
    """
    for name, row in tasks.items():
        # One table per task, with its name as the title: names of tasks are too long for a column.
        table = _table("metric", "score", "", "best baseline", "", title=f"{name} ({row['documents']:,} documents)")
        for column, width in zip(table.columns, (23, 7, 7, 31, 4), strict=True):
            column.min_width = width
        for metric, score in row["scores"].items():
            table.add_row(
                metric,
                *_with_error(score, row["standard_errors"].get(metric), digits=2),
                _best_baseline(row["baselines"].get(metric, {})),
                _NOT_SIGNIFICANT if row["not_significantly_above"].get(metric) else "",
            )
        console.print(table)
    console.print(_LEGEND, style="dim")
    statistics = {name: row["answer_statistics"] for name, row in tasks.items() if row["answer_statistics"]}
    if statistics:
        console.print()
        _print_statistics("answers to", statistics)
    for name, row in tasks.items():
        _print_instruction_types(name, row["by_instruction"])


def _print_instruction_types(task: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print how often each type of instruction was followed, next to the best baseline, if the task has any."""
    if not rows:
        return
    title = f"{task}, strictly, by type of instruction"
    table = _table("instruction", "count", "followed", "best baseline", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        # The baseline's name has no room beside the longest types.
        shares = [followed / row["total"] for followed in (row["followed"], max(row["baselines"].values()))]
        table.add_row(name, f"{row['total']:,}", *(f"{share:.0%}" for share in shares))
    console.print()
    console.print(table)


def print_reference_scores(tasks: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the published scores of the same tasks next to our own; nothing if there are none."""
    comparisons = compare_with_reference(tasks)
    if not comparisons:
        return
    table = _table("score", "published", "here", "", "", title=f"next to {reference_model().name}")
    for row in comparisons:
        table.add_row(
            row.reference.title,
            f"{row.reference.score:.2%}",
            *_with_error(row.score, row.standard_error, digits=2),
            row.verdict,
        )
    console.print()
    console.print(table)


def _print_statistics(head: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    keys = [key for key in _STATISTICS if all(key in row for row in rows.values())]
    table = _table(head, *(_STATISTICS[key][0] for key in keys))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        table.add_row(name, *(_STATISTICS[key][1].format(row[key]) for key in keys))
    console.print(table)
    console.print("; ".join(f"{head}: {legend}" for head, _, legend in (_STATISTICS[key] for key in keys)), style="dim")


def _table(*heads: str, title: str | None = None) -> Table:
    return Table(*heads, title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)


def _with_error(score: float, error: float | None, digits: int) -> tuple[str, str]:
    """A score and its standard error, in two cells; the second is empty if the error is unknown."""
    return f"{score:.{digits}%}", "" if error is None else f"± {error:.{digits}%}"


def _best_baseline(baselines: Mapping[str, float]) -> str:
    """Score and name of the best baseline; empty if there are none."""
    if not baselines:
        return ""
    name = max(baselines, key=lambda baseline: baselines[baseline])
    return f"{baselines[name]:.1%} {name}"
