"""TensorBoard and trackio, for those who have them installed: `pip install tensorboard`, `pip install trackio`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from keylm.common.console import console


class Tracker(Protocol):
    """Something that keeps the numbers of a run."""

    def write(self, row: dict[str, Any]) -> None:
        """Take the numbers of a row of metrics."""
        ...

    def close(self) -> None:
        """Write what is held back."""
        ...


def installed_trackers(folder: Path, steps_done: int) -> list[Tracker]:
    """The trackers of the stage in `folder`, for those of the two that are installed.

    Args:
        steps_done: where a resumed run begins: TensorBoard forgets what came after.
    """
    found: list[Tracker] = []
    if find_spec("tensorboard"):
        found.append(TensorBoard(folder / "tensorboard", steps_done))
    if find_spec("trackio"):
        found.append(Trackio(folder))
    return found


class TensorBoard:
    """Event files in the stage's folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, steps_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=steps_done + 1)
        console.print(f"  TensorBoard: {folder}")

    def write(self, row: dict[str, Any]) -> None:
        """Take the numbers of a row."""
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is held back."""
        self._writer.close()


class Trackio:
    """A local trackio project with the run's name: `trackio show`. Steps that are measured again are there twice."""

    def __init__(self, folder: Path) -> None:
        trackio: Any = import_module("trackio")
        self._run = trackio.init(project=folder.parent.name, name=folder.name, resume="allow", embed=False)
        console.print(f"  trackio: project {folder.parent.name}")

    def write(self, row: dict[str, Any]) -> None:
        """Take the numbers of a row."""
        self._run.log(scalars(row), step=row["step"])

    def close(self) -> None:
        """Write what is held back."""
        self._run.finish()


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row by name; those of a validation are called `validation/SOURCE`."""
    named = {name: value for name, value in row.items() if name != "validation"}
    named |= {f"validation/{name}": value for name, value in row.get("validation", {}).items()}
    return {name: float(value) for name, value in named.items() if name != "step" and isinstance(value, int | float)}
