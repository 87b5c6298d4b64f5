"""The view of a run: on recorded metrics, and on a run that trains meanwhile."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.screen import assert_readable
from rich.console import Console

from keylm.commands.watch import show_watch, sparkline, watch_view
from keylm.common.errors import UserError
from keylm.run import Run, create, open_run


def shown(run: Run) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(watch_view(run))
    return re.sub(r"[ │]+", " ", console.export_text())


def record(run: Run, rows: list[dict]) -> None:
    folder = run.stage("pretrain")
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def step(number: int, **changes: object) -> dict:
    return {
        "step": number,
        "tokens": 512 * number,
        "loss": 6.0 - number / 10,
        "learning_rate": 1e-3,
        "grad_norm": 1.5,
        "tokens_per_second": 256.0,
        "mfu": 0.41,
        "memory_bytes": 3 * 2**29,
        "seconds": 2.0 * number,
        **changes,
    }


def test_preference_tuning_is_shown(tiny_run: Run) -> None:
    run = open_run(tiny_run.folder, ["dpo.num_pairs=320"])
    record(run, [step(number) for number in range(1, 11)])
    run.stage("dpo").mkdir()
    row = step(4, preferred=0.75)
    del row["mfu"]
    (run.stage("dpo") / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    text = shown(run)
    assert "tiny: dpo" in text
    assert "4 of 10 (40%)" in text
    assert "reward accuracy 75%" in text
    # 6 steps of 512 tokens at 256 tokens per second
    assert "time left 0:00:12" in text


def test_recorded_metrics_are_shown(tiny_run: Run) -> None:
    skip = {"step": 11, "tokens": 512 * 11, "skipped": 1, "reason": "loss nan, gradient norm nan", "batch": "prose 7"}
    scores = [
        {"step": number, "tokens": 512 * number, "validation": {"prose": score, "talk": 3.0}}
        for number, score in ((5, 1.75), (10, 1.5))
    ]
    record(tiny_run, [*(step(number) for number in range(1, 11)), *scores, skip, step(12, loss=4.0)])
    text = shown(tiny_run)
    assert "tiny: pretrain" in text
    assert "12 of 30 (40%)" in text
    assert re.search(r"loss █\S+▁ 5\.318", text)
    assert "tokens/s 256" in text
    assert "MFU 41%" in text
    assert "memory 1.50 GiB" in text
    # 18 steps of 512 tokens at 256 tokens per second
    assert "time left 0:00:36" in text
    assert "validation, bits per byte \n prose 1.750 → 1.500" in text
    assert "talk 3.000 → 3.000" in text
    assert "skipped steps 1, the last at step 10: loss nan, gradient norm nan; prose 7" in text
    assert "training" in text


def test_the_view_is_readable_at_80_columns(prepared: Run, tmp_path: Path) -> None:
    # The longest names and the largest numbers that there are.
    run = create(prepared.recipe.model_copy(update={"title": "A model with quite a long title"}), tmp_path / "long")
    skip = {"skipped": 3, "reason": "loss nan, gradient norm nan", "batch": "smoltalk2-persona-following 123456"}
    scores = {"step": 100_000, "validation": {"smoltalk2-persona-following": 12.345, "talk": 3.0}}
    steps = [step(number, tokens_per_second=1_234_567.0, preferred=0.75) for number in range(1, 200)]
    record(run, [*steps, *[scores] * 5, {"step": 100_001, **skip}])
    (run.stage("pretrain") / "stage.json").write_text("{}")
    screen = assert_readable(lambda: show_watch(run, once=True))
    assert "smoltalk2-persona-following  12.345 → 12.345 → 12.345 → 12.345 → 12.345" in screen


@pytest.mark.parametrize(
    ("values", "bars"),
    [([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"), ([3, 3], "▁▁"), ([8, 6, 1, 1], "█▁"), ([0.5], "▁")],
)
def test_a_sparkline_is_scaled_to_its_range(values: list[float], bars: str) -> None:
    assert sparkline(values, width=max(len(bars), 1)) == bars


def test_a_run_that_has_not_begun_gets_a_sentence(tiny_run: Run) -> None:
    with pytest.raises(UserError, match="has not begun to train"):
        watch_view(tiny_run)


def test_a_live_run_is_watched_from_another_process(tiny_run: Run) -> None:
    folder = str(tiny_run.folder)
    with subprocess.Popen([sys.executable, "-m", "keylm", "pretrain", folder], stderr=subprocess.DEVNULL) as training:
        while not list(tiny_run.stage("pretrain").glob("metrics.jsonl")):
            assert training.poll() is None
        once = _watch(folder, "--once")
        training.wait()
    assert once.returncode == 0, once.stderr
    assert "of 30" in once.stdout
    assert "skipped steps" in once.stdout
    assert training.returncode == 0
    assert "finished" in _watch(folder, "--once").stdout
    (tiny_run.stage("sft")).mkdir()
    (tiny_run.stage("sft") / "stage.json").write_text("{}")
    until_the_end = _watch(folder)
    assert until_the_end.returncode == 0, until_the_end.stderr
    assert "30 of 30 (100%)" in until_the_end.stdout


def _watch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keylm", "watch", *arguments], capture_output=True, text=True, timeout=60
    )
