"""How the training of a run goes, from the metrics that it writes: for the terminal and for the page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from keylm.common.errors import UserError
from keylm.run import Run
from keylm.stages import num_steps, training_stages
from keylm.train.metrics import read_metrics

_AVERAGED_STEPS = 20
"""Steps over which loss and speed are averaged."""
_STALLED_SECONDS = 60
"""After this time without a step, the state says so."""


@dataclass(frozen=True)
class TrainingState:
    """The latest stage that has begun to train."""

    title: str
    stage: str
    state: str
    """`training`, `finished`, or for how long there was no step."""
    num_steps: int
    """Steps that the stage has."""
    rows: list[dict[str, Any]]
    """Its metrics so far."""

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of steps that were not skipped."""
        return self.rows_with("loss")

    def rows_with(self, key: str) -> list[dict[str, Any]]:
        """The rows that have a key."""
        return [row for row in self.rows if key in row]

    def mean(self, key: str) -> float:
        """A number of the steps, averaged over the latest ones."""
        recent = self.steps[-_AVERAGED_STEPS:]
        return sum(float(row[key]) for row in recent) / len(recent)

    @property
    def seconds_left(self) -> float:
        """Time to the last step at the present speed. There must have been a step."""
        latest = self.steps[-1]
        tokens_per_step: float = latest["tokens"] / latest["step"]
        return max(0, self.num_steps - self.step) * tokens_per_step / self.mean("tokens_per_second")


def training_state(run: Run) -> TrainingState:
    """Read how the latest stage that has begun to train goes.

    Raises:
        UserError: The run has not begun to train.
    """
    begun = [name for name in training_stages(run) if _metrics_path(run, name).exists()]
    if not begun:
        raise UserError(f"{run.folder} has not begun to train: run `keylm run {run.folder}` first")
    stage = begun[-1]
    return TrainingState(
        title=run.recipe.title or run.recipe.name,
        stage=stage,
        state=_state(run, stage),
        num_steps=num_steps(run, stage),
        rows=read_metrics(_metrics_path(run, stage)),
    )


def _metrics_path(run: Run, stage: str) -> Path:
    return run.stage(stage) / "metrics.jsonl"


def _state(run: Run, stage: str) -> str:
    if run.is_finished(stage):
        return "finished"
    # The file's own time: a process that was killed cannot say so.
    silent_seconds = time.time() - _metrics_path(run, stage).stat().st_mtime
    if silent_seconds < _STALLED_SECONDS:
        return "training"
    return f"no step for {timedelta(seconds=round(silent_seconds))}"
