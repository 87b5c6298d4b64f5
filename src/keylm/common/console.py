"""What a person sees while a stage works: one console, one progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from keylm.common.ranks import is_main_process

console = Console(stderr=True, highlight=False, quiet=not is_main_process())
"""Where progress goes: of several ranks the first one shows it."""

output = Console(highlight=False)
"""Where answers go."""


@dataclass(frozen=True)
class Bar:
    """A progress bar that one loop advances."""

    progress: Progress
    task: TaskID

    def advance(self, amount: float = 1) -> None:
        """Move on by `amount` units."""
        self.progress.advance(self.task, amount)

    def expect(self, total: float) -> None:
        """Correct the number of units that there are in all. Rich's own `update` would forget the measured rate."""
        self.progress.tasks[0].total = total

    def describe(self, text: str) -> None:
        """Replace the words before the bar."""
        self.progress.update(self.task, description=text)


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or task.completed / (task.elapsed or 1)
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed < 100 else f"{speed:,.0f} {task.fields['unit']}/s")


@contextmanager
def progress(description: str, total: float | None, unit: str) -> Iterator[Bar]:
    """Show a bar with its rate and the time that is left, until the block ends."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        yield Bar(bars, bars.add_task(description, total=total, unit=unit))
