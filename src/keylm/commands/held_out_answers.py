"""A few answers to held-out requests, with the checker's verdict on each: what a score does not show."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from keylm.common.console import output
from keylm.evaluate.results import last_finetuned_stage, load_measurement
from keylm.run import Run

_MAX_CHARACTERS = 400
"""Of an answer: one that loops would fill the screen."""


def show_held_out_answers(run: Run, count: int = 3) -> None:
    """Print the first `count` held-out requests that a program can check, the answers, and whether each was followed.

    Nothing is printed if instruction following is not measured.
    """
    scores = load_measurement(run, "instruction_following")
    stage = last_finetuned_stage(scores)
    # The first ones, not the best ones.
    samples = [sample for sample in scores[stage]["samples"] if sample["constraints"]] if stage else []
    if not samples:
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for sample in samples[:count]:
        table.add_row()
        for message in sample["messages"]:
            table.add_row("you" if message["role"] == "user" else message["role"], escape(_shorten(message["content"])))
        table.add_row("checked", _verdicts(sample))
    output.print(f"\nThe first {len(samples[:count])} of the held-out requests, as they come:")
    output.print(table)


def _verdicts(sample: dict[str, Any]) -> str:
    verdicts = zip(sample["constraints"], sample["followed"], strict=True)
    return ", ".join(
        f"[green]✓[/] {name}" if followed else f"[red]✗[/] {name} (not followed)" for name, followed in verdicts
    )


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} ... (and so on)"
