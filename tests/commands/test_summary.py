"""The headlines at the end of a run."""

from __future__ import annotations

from pathlib import Path

from helpers.made_up_run import made_up_run
from helpers.screen import assert_readable

from keylm.commands.summary import show_summary
from keylm.evaluate.results import collect_results
from keylm.run import create


def test_headlines_are_readable_at_80_columns(tmp_path: Path) -> None:
    results = collect_results(made_up_run(tmp_path / "run"))
    screen = assert_readable(lambda: show_summary(results))
    assert "75.0%" in screen
    assert "before SFT: 10.0%" in " ".join(screen.split())
    assert "peak memory" in screen


def test_a_new_run_has_only_a_title(tmp_path: Path) -> None:
    run = create(made_up_run(tmp_path / "old").recipe, tmp_path / "new")
    assert assert_readable(lambda: show_summary(collect_results(run))).split() == ["Made-up", "6M"]
