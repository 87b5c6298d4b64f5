"""`keylm watch`: a live view of a run that another process trains, made from the metrics that training writes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keylm.commands.training_state import TrainingState, training_state
from keylm.common.console import output
from keylm.common.units import gib
from keylm.run import Run
from keylm.stages import training_stages
from keylm.train.progress import sample_lines, time_left

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 40
_SHOWN_VALIDATIONS = 5
_REFRESH_SECONDS = 1.0


def show_watch(run: Run, once: bool) -> None:
    """Show how a run trains, until it is done or Ctrl-C; with `once`, print its present state and return.

    Raises:
        UserError: the run has not begun to train.
    """
    if once:
        output.print(watch_view(run))
        return
    last_stage = run.stage(training_stages(run)[-1])
    with Live(watch_view(run), console=output, refresh_per_second=4) as live:
        while not (last_stage / "stage.json").exists():
            time.sleep(_REFRESH_SECONDS)
            live.update(watch_view(run))


def watch_view(run: Run) -> RenderableType:
    """Draw the latest stage that has begun to train. At most 80 columns wide.

    Raises:
        UserError: the run has not begun to train.
    """
    now = training_state(run)
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        ProgressBar(total=now.num_steps, completed=now.step, width=30),
        f"{now.step:,} of {now.num_steps:,} ({now.step / now.num_steps:.0%})",
    )
    numbers = _grid()
    numbers.add_row("step", progress)
    if now.steps:
        _add_training(numbers, now)
    skipped = now.rows_with("skipped")
    if skipped:
        last = skipped[-1]
        where = f", the last at step {last['step'] - 1:,}: {last['reason']}; {last['batch']}"
        numbers.add_row("skipped steps", Text.assemble((str(last["skipped"]), "red"), where))
    else:
        numbers.add_row("skipped steps", "0")

    parts: list[RenderableType] = [numbers]
    for key, title in (("validation", "validation"), ("answers", "held-out answers")):
        validations = [row[key] for row in now.rows_with(key)][-_SHOWN_VALIDATIONS:]
        if validations:
            scores = _grid()
            for source in validations[-1]:
                history = [f"{scored[source]:.3f}" for scored in validations if source in scored]
                scores.add_row(source, " → ".join(history))
            parts += ["", f"{title}, bits per byte", scores]
    samples = now.rows_with("sample")
    if samples:
        parts += ["", sample_lines(samples[-1]["step"], samples[-1]["sample"])]
    return Panel(Group(*parts), title=Text(f"{now.title}: {now.stage}"), subtitle=now.state, expand=False)


def sparkline(values: Sequence[float], width: int = _SPARKLINE_WIDTH) -> str:
    """Draw numbers as at most `width` blocks, scaled from the lowest to the highest; adjacent numbers are averaged."""
    size = -(-len(values) // width)
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low or 1.0)
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def _add_training(numbers: Table, now: TrainingState) -> None:
    """Add loss, speed, memory and time left."""
    latest = now.steps[-1]
    numbers.add_row("loss", f"{sparkline([row['loss'] for row in now.steps])}  {now.mean('loss'):.3f}")
    numbers.add_row("gradient norm", f"{now.mean('grad_norm'):.3f}")
    numbers.add_row("tokens/s", f"{now.mean('tokens_per_second'):,.0f}")
    # Each is written by some stages only: pretraining and SFT, DPO, GRPO.
    for label, key in (("MFU", "mfu"), ("reward accuracy", "preferred"), ("reward", "reward")):
        if key in latest:
            numbers.add_row(label, f"{now.mean(key):.0%}")
    numbers.add_row("memory", gib(latest["memory_bytes"]))
    numbers.add_row("time left", time_left(now.seconds_left))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    return grid
