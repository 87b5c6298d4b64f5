"""The five lines at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run
from helpers.screen import assert_readable

from keylm.commands.summary import show_summary
from keylm.evaluate.results import collect_results
from keylm.run import create


def test_the_five_lines_are_readable_at_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = collect_results(made_up_run(Path("runs/made-up")))
    words = " ".join(assert_readable(lambda: show_summary(results, Path("runs/made-up"))).split())
    assert "talk 1.81 bits per byte before SFT, 1.49 after" in words
    assert "75% of generated instructions followed (before SFT 10%, " in words
    assert "GiB at most" in words
    assert "keylm chat runs/made-up" in words
    for name, row in results["bits_per_byte"].items():
        assert f"{name} {row['pretrain']:.2f} (xz -9e {row['xz']:.2f})" in words
    for name, count in results["tokens"]["trained"]["pretrain"].items():
        assert f"{name} {count / 4_100_000:.1f}x" in words


def test_a_new_run_has_only_a_title(tmp_path: Path) -> None:
    run = create(made_up_run(tmp_path / "old").recipe, tmp_path / "new")
    screen = assert_readable(lambda: show_summary(collect_results(run), run.folder))
    assert screen.split() == ["Made-up", "6M"]
