"""The console: where messages and results are printed, and the one progress bar."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from keylm.common.ranks import is_main_process

console = Console(stderr=True, highlight=False, quiet=not is_main_process())
"""For messages and progress, on stderr. Only the main process prints."""

output = Console(highlight=False)
"""For the results that a command was asked for, on stdout."""


@dataclass(frozen=True)
class Bar:
    """A progress bar that one loop advances."""

    progress: Progress
    task: TaskID

    def advance(self, amount: float = 1) -> None:
        """Advance by `amount` units."""
        self.progress.advance(self.task, amount)

    def set_total(self, total: float) -> None:
        """Correct the total number of units."""
        # Rich's own `update(total=...)` resets the measured speed.
        self.progress.tasks[0].total = total

    def set_description(self, text: str) -> None:
        """Replace the text in front of the bar."""
        self.progress.update(self.task, description=text)


def printable(text: str) -> str:
    """Text without control characters other than line breaks and tabs: a model's words must not steer the terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) != "Cc")


class _SpeedColumn(ProgressColumn):
    """Units per second. Rich's own column leaves it empty once the bar is finished."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or task.completed / (task.elapsed or 1)
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed < 100 else f"{speed:,.0f} {task.fields['unit']}/s")


@contextmanager
def progress(description: str, total: float | None, unit: str) -> Iterator[Bar]:
    """Show a progress bar with its speed and the time left, until the block ends.

    Args:
        description: Text in front of the bar.
        total: Number of units, or None if it is not known yet (see `Bar.set_total`).
        unit: Name of the unit, for the speed.
    """
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        _SpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        yield Bar(bars, bars.add_task(description, total=total, unit=unit))
