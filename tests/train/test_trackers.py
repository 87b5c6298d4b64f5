"""TensorBoard and trackio, if they are installed, have the numbers of the metrics file."""

from __future__ import annotations

from pathlib import Path

import pytest

from keylm.train.metrics import Metrics
from keylm.train.trackers import scalars

ROWS = [
    {"step": 1, "tokens": 512, "loss": 5.5, "grad_norm": 2.0},
    {"step": 2, "tokens": 1024, "loss": 5.25, "grad_norm": 1.5},
    {"step": 2, "tokens": 1024, "validation": {"prose": 1.75}},
    {"step": 3, "tokens": 1536, "skipped": 1, "reason": "loss nan", "batch": "prose"},
]


def test_a_row_becomes_numbers() -> None:
    assert scalars(ROWS[0]) == {"tokens": 512.0, "loss": 5.5, "grad_norm": 2.0}
    assert scalars(ROWS[2]) == {"tokens": 1024.0, "validation/prose": 1.75}
    assert scalars(ROWS[3]) == {"tokens": 1536.0, "skipped": 1.0}


def test_tensorboard_has_each_step_once_after_a_restart(tmp_path: Path, trackio_folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, 0)
    for row in ROWS:
        first.log(row)
    first.close()
    second = Metrics(path, 1)
    second.log({**ROWS[1], "loss": 5.0})
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 5.5), (2, 5.0)]


def test_trackio_has_the_numbers(tmp_path: Path, trackio_folder: Path) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    folder = tmp_path / "my-run" / "pretrain"
    folder.mkdir(parents=True)
    metrics = Metrics(folder / "metrics.jsonl", 0)
    for row in ROWS:
        metrics.log(row)
    metrics.close()
    logs = SQLiteStorage.get_logs("my-run", "pretrain")
    assert [(row["step"], row["loss"]) for row in logs if "loss" in row] == [(1, 5.5), (2, 5.25)]
    assert [row["validation/prose"] for row in logs if "validation/prose" in row] == [1.75]


@pytest.fixture
def trackio_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for trackio other than the user's own; it is read when trackio is imported."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path / "trackio"
