"""`keylm watch`: a live view of a run that another process trains, made from the metrics that training writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.run import Run
from keylm.stages import num_steps, training_stages
from keylm.train.metrics import read_metrics

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 40
_AVERAGED_STEPS = 20
"""Steps over which loss and speed are averaged."""
_SHOWN_VALIDATIONS = 5
_REFRESH_SECONDS = 1.0
_STALLED_SECONDS = 60
"""After this time without a step, the view says so."""


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
    begun = [name for name in training_stages(run) if _metrics_path(run, name).exists()]
    if not begun:
        raise UserError(f"{run.folder} has not begun to train: run `keylm run {run.folder}` first")
    stage = begun[-1]
    rows = read_metrics(_metrics_path(run, stage))
    num_done, total = rows[-1]["step"] if rows else 0, num_steps(run, stage)

    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        ProgressBar(total=total, completed=num_done, width=30), f"{num_done:,} of {total:,} ({num_done / total:.0%})"
    )
    numbers = _grid()
    numbers.add_row("step", progress)
    steps = [row for row in rows if "loss" in row]
    if steps:
        _add_training(numbers, steps, total)
    skipped = [row for row in rows if "skipped" in row]
    if skipped:
        last = skipped[-1]
        where = f", the last at step {last['step'] - 1:,}: {last['reason']}; {last['batch']}"
        numbers.add_row("skipped steps", Text.assemble((str(last["skipped"]), "red"), where))
    else:
        numbers.add_row("skipped steps", "0")

    parts: list[RenderableType] = [numbers]
    validations = [row["validation"] for row in rows if "validation" in row][-_SHOWN_VALIDATIONS:]
    if validations:
        scores = _grid()
        for source in validations[-1]:
            history = [f"{scored[source]:.3f}" for scored in validations if source in scored]
            scores.add_row(source, " → ".join(history))
        parts += ["", "validation, bits per byte", scores]

    title = Text(f"{run.recipe.title or run.recipe.name}: {stage}")
    return Panel(Group(*parts), title=title, subtitle=_state(run, stage), expand=False)


def sparkline(values: Sequence[float], width: int = _SPARKLINE_WIDTH) -> str:
    """Draw numbers as at most `width` blocks, scaled from the lowest to the highest; adjacent numbers are averaged."""
    size = -(-len(values) // width)
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low or 1.0)
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def _add_training(numbers: Table, steps: list[dict[str, Any]], total: int) -> None:
    """Add loss, speed, memory and time left, given the metrics of the steps and the total number of steps."""
    latest, recent = steps[-1], steps[-_AVERAGED_STEPS:]

    def mean(key: str) -> float:
        return sum(float(row[key]) for row in recent) / len(recent)

    tokens_per_second = mean("tokens_per_second")
    tokens_per_step = latest["tokens"] / latest["step"]
    seconds_left = max(0, total - latest["step"]) * tokens_per_step / tokens_per_second
    numbers.add_row("loss", f"{sparkline([row['loss'] for row in steps])}  {mean('loss'):.3f}")
    numbers.add_row("gradient norm", f"{mean('grad_norm'):.3f}")
    numbers.add_row("tokens/s", f"{tokens_per_second:,.0f}")
    # Each is written by some stages only: pretraining and SFT, DPO, GRPO.
    for label, key in (("MFU", "mfu"), ("reward accuracy", "preferred"), ("reward", "reward")):
        if key in latest:
            numbers.add_row(label, f"{mean(key):.0%}")
    numbers.add_row("memory", f"{latest['memory_bytes'] / 2**30:.2f} GiB")
    numbers.add_row("time left", str(timedelta(seconds=round(seconds_left))))


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    return grid


def _metrics_path(run: Run, stage: str) -> Path:
    return run.stage(stage) / "metrics.jsonl"


def _state(run: Run, stage: str) -> str:
    if (run.stage(stage) / "stage.json").exists():
        return "finished"
    # The file's own time: a process that was killed cannot say so.
    silent_seconds = time.time() - _metrics_path(run, stage).stat().st_mtime
    if silent_seconds < _STALLED_SECONDS:
        return "training"
    return f"no step for {timedelta(seconds=round(silent_seconds))}"
