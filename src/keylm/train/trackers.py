"""Experiment trackers, used if they are installed: TensorBoard and trackio."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from keylm.common.console import console


class Tracker(Protocol):
    """Where the numbers of a run are tracked, besides `metrics.jsonl`."""

    def log(self, row: dict[str, Any]) -> None:
        """Track the numbers of a row of metrics."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


def installed_trackers(folder: Path, steps_done: int) -> list[Tracker]:
    """Start the trackers that are installed.

    Args:
        folder: the stage's folder in the run.
        steps_done: where training resumes. TensorBoard drops what it has of later steps.
    """
    trackers: list[Tracker] = []
    if find_spec("tensorboard"):
        trackers.append(TensorBoard(folder / "tensorboard", steps_done))
    if find_spec("trackio"):
        trackers.append(Trackio(folder))
    return trackers


class TensorBoard:
    """Event files in the stage's folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, steps_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard would show the steps after a checkpoint twice, once from before the restart.
        self._writer = SummaryWriter(folder, purge_step=steps_done + 1)
        console.print(f"  TensorBoard: {folder}")

    def log(self, row: dict[str, Any]) -> None:
        """Track the numbers of a row."""
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Trackio:
    """A local trackio project with the run's name: `trackio show`. Steps repeated after a restart are there twice."""

    def __init__(self, folder: Path) -> None:
        trackio: Any = import_module("trackio")
        self._run = trackio.init(project=folder.parent.name, name=folder.name, resume="allow", embed=False)
        console.print(f"  trackio: project {folder.parent.name}")

    def log(self, row: dict[str, Any]) -> None:
        """Track the numbers of a row."""
        self._run.log(scalars(row), step=row["step"])

    def close(self) -> None:
        """Flush and close."""
        self._run.finish()


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by name; those of dictionaries are named `KEY/NAME`, such as `validation/SOURCE`."""
    named: dict[str, Any] = {}
    for key, value in row.items():
        named |= {f"{key}/{name}": score for name, score in value.items()} if isinstance(value, dict) else {key: value}
    return {name: float(value) for name, value in named.items() if name != "step" and type(value) in (int, float)}
