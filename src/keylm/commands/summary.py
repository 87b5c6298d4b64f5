"""The headlines of a run, each next to what it has to be compared with."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from keylm.common.console import output
from keylm.evaluate.results import last_finetuned_stage


def show_summary(results: dict[str, Any]) -> None:
    """Print the headlines of `results.json`: bits per byte, instruction following, time and memory."""
    table = Table(title=results["title"], title_justify="left", box=None, padding=(0, 2), show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, row in results["bits_per_byte"].items():
        if "pretrain" in row:
            table.add_row(f"bits per byte, {name}", f"{row['pretrain']:.3f}", f"xz -9e: {row['xz']:.3f}")
    _add_instruction_following(table, results["instruction_following"])
    costs = results["stages"].values()
    if costs:
        minutes = sum(cost["seconds"] for cost in costs) / 60
        peak = max(cost["peak_memory_bytes"] for cost in costs)
        table.add_row("time, all stages", f"{minutes:.1f} min", "last call of each stage")
        table.add_row("peak memory", f"{peak / 2**30:.2f} GiB", f"{results['machine']['cores']} cores")
    output.print(table)


def _add_instruction_following(table: Table, scores: dict[str, Any]) -> None:
    stage = last_finetuned_stage(scores)
    if stage is None:
        return
    row = scores[stage]
    name, baseline = max(scores["baselines"].items(), key=lambda item: float(item[1]["instruction_accuracy"]))
    comparison = f"{name}: {baseline['instruction_accuracy']:.1%}"
    if "pretrain" in scores:
        comparison += f"; before SFT: {scores['pretrain']['instruction_accuracy']:.1%}"
    table.add_row("instruction accuracy", f"{row['instruction_accuracy']:.1%}", comparison)
    table.add_row("topic mentioned", f"{row['topic_mentioned']:.1%}", "unseen phrasings and topics")
    table.add_row("copy tasks", f"{row['copy_accuracy']:.1%}", "unseen words")
