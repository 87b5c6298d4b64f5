"""The headlines of a run: its results, each beside what it must be compared with."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from keylm.common.console import output
from keylm.evaluate.results import tuned_results


def show_summary(results: dict[str, Any]) -> None:
    """Print the headlines of `results.json`.

    They are bits per byte beside those of `xz`, held-out instructions beside the trivial baselines, and the costs.
    """
    table = Table(title=results["title"], title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for source, bits in results["bits_per_byte"].items():
        if "pretrain" in bits:
            table.add_row(f"bits per byte, {source}", f"{bits['pretrain']:.3f}", f"xz -9e: {bits['xz']:.3f}")

    instructions = results["instructions"]
    last_stage = tuned_results(instructions)
    if last_stage:
        tuned = instructions[last_stage]
        baselines = [f"{name} {row['followed']:.0%}" for name, row in instructions["null_answers"].items()]
        if "pretrain" in instructions:
            baselines.append(f"before SFT {instructions['pretrain']['followed']:.0%}")
        table.add_row("held-out instructions followed", f"{tuned['followed']:.1%}", ", ".join(baselines))
        table.add_row("answers on the topic asked for", f"{tuned['on_topic']:.1%}", "unseen phrasings and topics")
        table.add_row("copy tasks solved", f"{tuned['copied']:.1%}", "unseen words")

    costs = results["stages"].values()
    if costs:
        minutes = sum(cost["seconds"] for cost in costs) / 60
        peak_bytes = max(cost["peak_memory_bytes"] for cost in costs)
        table.add_row("time, all stages", f"{minutes:.1f} min", "last run of each stage")
        table.add_row("peak memory", f"{peak_bytes / 2**30:.2f} GiB", f"{results['machine']['cores']} cores")
    output.print(table)
