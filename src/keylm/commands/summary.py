"""The end of a run in five lines: scores, each next to what it has to be compared with, costs, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from keylm.common.console import output
from keylm.common.units import gib
from keylm.evaluate.results import last_finetuned_stage


def show_summary(results: dict[str, Any], folder: Path) -> None:
    """Print the headlines of `results.json`, and the commands that use the model in the run folder `folder`."""
    table = Table(title=results["title"], title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    # A path that is longer than a line must stay whole.
    table.add_column(overflow="fold")
    run = shlex.quote(str(folder))
    rows = {
        "bits per byte": ", ".join(_bits_per_byte(results["bits_per_byte"])),
        "held-out answers": "; ".join([*_answers(results), *_instructions(results["instruction_following"])]),
        "read": "; ".join(_epochs(results["tokens"])),
        "cost": _cost(results),
        "next": f"keylm chat {run}, keylm serve {run}, keylm run {run} --more 30m, {folder / 'report.html'}"
        if results["weights"]
        else "",
    }
    for subject, line in rows.items():
        if line:
            table.add_row(subject, escape(line))
    output.print(table)


def _bits_per_byte(scores: dict[str, Any]) -> Iterator[str]:
    for name, row in scores.items():
        if "pretrain" in row:
            yield f"{name} {row['pretrain']:.2f} (xz -9e {row['xz']:.2f})"


def _answers(results: dict[str, Any]) -> Iterator[str]:
    """Bits per byte of the answers of each SFT source, before and after."""
    for name, row in results["sft_answers"].get("bits_per_byte", {}).items():
        stage = last_finetuned_stage(row)
        if stage and "pretrain" in row:
            yield f"{name} {row['pretrain']:.2f} bits per byte before SFT, {row[stage]:.2f} after"


def _instructions(scores: dict[str, Any]) -> Iterator[str]:
    stage = last_finetuned_stage(scores)
    if stage is None:
        return
    name, baseline = max(scores["baselines"].items(), key=lambda item: float(item[1]["instruction_accuracy"]))
    before = f"before SFT {scores['pretrain']['instruction_accuracy']:.0%}, " if "pretrain" in scores else ""
    followed = f"{scores[stage]['instruction_accuracy']:.0%} of generated instructions followed"
    yield f"{followed} ({before}{name} {baseline['instruction_accuracy']:.0%})"


def _epochs(tokens: dict[str, Any]) -> Iterator[str]:
    """How often each source was read, by stage."""
    for stage, trained in tokens["trained"].items():
        prepared = tokens["prepared"].get(stage, {})
        times = [
            f"{name} {count / prepared[name]['train']:.1f}x" for name, count in trained.items() if name in prepared
        ]
        if times:
            yield f"{stage}: {', '.join(times)}"


def _cost(results: dict[str, Any]) -> str:
    stages = results["stages"].values()
    if not stages:
        return ""
    minutes = sum(stage["seconds"] for stage in stages) / 60
    peak = max(stage["peak_memory_bytes"] for stage in stages)
    return f"{minutes:.1f} minutes (last call of each stage), {gib(peak)} at most"
