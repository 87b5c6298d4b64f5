"""The end of a run on the screen: what was reached, beside what it has to be compared with."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from keylm.common.console import output
from keylm.evaluate.results import tuned_results


def show_summary(found: dict[str, Any]) -> None:
    """Print the headlines of `results.json`: bits per byte beside xz, instructions beside null answers, costs."""
    table = Table(title=found["title"], title_justify="left", box=None, padding=(0, 2), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in [*_bits_per_byte(found["bits_per_byte"]), *_instructions(found["instructions"]), *_costs(found)]:
        table.add_row(*row)
    output.print(table)


def _bits_per_byte(sources: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (f"bits per byte, {name}", f"{row['pretrain']:.3f}", f"xz -9e needs {row['xz']:.3f}")
        for name, row in sources.items()
        if "pretrain" in row
    ]


def _instructions(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    last = tuned_results(scores)
    if last is None:
        return []
    tuned = scores[last]
    nulls = scores["null_answers"]
    beside = ", ".join(f"{name} {row['followed']:.0%}" for name, row in nulls.items())
    before = f"; before SFT {scores['pretrain']['followed']:.0%}" if "pretrain" in scores else ""
    return [
        ("held-out instructions followed", f"{tuned['followed']:.1%}", f"{beside}{before}"),
        ("answers that name the topic", f"{tuned['on_topic']:.1%}", "unseen phrasings and topics"),
        ("copying exercises", f"{tuned['copied']:.1%}", "unseen words"),
    ]


def _costs(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    costs = results["stages"].values()
    if not costs:
        return []
    seconds = sum(cost["seconds"] for cost in costs)
    peak = max(cost["peak_memory_bytes"] for cost in costs)
    return [
        ("time, all stages", f"{seconds / 60:.1f} min", "of the last run of each stage"),
        ("peak memory", f"{peak / 2**30:.2f} GiB", f"{results['machine']['cores']} cores"),
    ]
