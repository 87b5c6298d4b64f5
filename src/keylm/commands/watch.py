"""`keylm watch`: a live view of a run that trains in another process, read from what it writes anyway."""

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

from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.run import Run
from keylm.stages import num_steps, training_stages
from keylm.train.metrics import read_metrics

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_RECENT = 20
"""Steps over which rates are averaged."""
_REFRESH_SECONDS = 1.0
_SILENCE_SECONDS = 60
"""Longer than this without a step, the view says so."""


def show_watch(run: Run, once: bool) -> None:
    """Show the training of a run until it is done or Ctrl-C ends the view; with `once`, as it is now.

    Raises:
        UserError: the run has not begun to train.
    """
    if once:
        output.print(watch_view(run))
        return
    with Live(watch_view(run), console=output, refresh_per_second=4) as live:
        while not _is_finished(run):
            time.sleep(_REFRESH_SECONDS)
            live.update(watch_view(run))


def watch_view(run: Run) -> RenderableType:
    """What there is to see of the stage that trains, or has trained last."""
    stage = _stage(run)
    path = _metrics(run, stage)
    rows = read_metrics(path)
    steps = [row for row in rows if "loss" in row]
    done, total = rows[-1]["step"] if rows else 0, num_steps(run, stage)
    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", justify="right")
    body.add_column()
    body.add_row("step", _progress(done, total))
    if steps:
        for name, value in _numbers(steps, total):
            body.add_row(name, value)
    for name, value in _scores(rows):
        body.add_row(name, value)
    skips = [row for row in rows if "skipped" in row]
    body.add_row("skipped steps", _skipped(skips))
    state = _state(run, stage, path)
    return Panel(Group(body), title=f"{run.recipe.title or run.recipe.name}: {stage}", subtitle=state, expand=False)


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Numbers as a row of at most `width` bars, from the lowest to the highest; neighbours are averaged."""
    size = -(-len(values) // width)
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low or 1.0)
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _stage(run: Run) -> str:
    for stage in reversed(training_stages(run)):
        if _metrics(run, stage).exists():
            return stage
    raise UserError(f"{run.folder} has not begun to train: run `keylm run {run.folder}` first")


def _metrics(run: Run, stage: str) -> Path:
    return run.stage(stage) / "metrics.jsonl"


def _is_finished(run: Run) -> bool:
    return (run.stage(training_stages(run)[-1]) / "stage.json").exists()


def _progress(done: int, total: int) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=total, completed=done, width=30), f"{done:,} of {total:,} ({done / total:.0%})")
    return line


def _numbers(steps: list[dict[str, Any]], total: int) -> list[tuple[str, str]]:
    recent = steps[-_RECENT:]
    rate = _mean(recent, "tokens_per_second")
    left = max(0, total - steps[-1]["step"]) * steps[-1]["tokens"] / steps[-1]["step"] / rate
    losses = [row["loss"] for row in steps]
    shares = {"MFU": "mfu", "rather the chosen answer": "preferred", "reward": "reward"}
    return [
        ("loss", f"{sparkline(losses)}  {_mean(recent, 'loss'):.3f}"),
        ("gradient norm", f"{_mean(recent, 'grad_norm'):.3f}"),
        ("tokens/s", f"{rate:,.0f}"),
        *((name, f"{_mean(recent, key):.0%}") for name, key in shares.items() if key in steps[-1]),
        ("memory", f"{steps[-1]['memory_bytes'] / 2**30:.2f} GiB"),
        ("time left", str(timedelta(seconds=round(left)))),
    ]


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def _scores(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Bits per byte by source, from the first validation to the last."""
    scores = [row["validation"] for row in rows if "validation" in row]
    if not scores:
        return []
    return [
        (f"bits per byte, {name}", " → ".join(f"{score[name]:.3f}" for score in scores[-5:] if name in score))
        for name in scores[-1]
    ]


def _skipped(skips: list[dict[str, Any]]) -> str:
    if not skips:
        return "0"
    last = skips[-1]
    return f"[red]{last['skipped']}[/], the last at step {last['step'] - 1:,}: {last['reason']}; {last['batch']}"


def _state(run: Run, stage: str, path: Path) -> str:
    if (run.stage(stage) / "stage.json").exists():
        return "finished"
    silent = time.time() - path.stat().st_mtime
    return "training" if silent < _SILENCE_SECONDS else f"no step for {timedelta(seconds=round(silent))}"
