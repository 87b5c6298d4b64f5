"""`keylm ls` and `keylm compare`, on runs that never trained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run, write_metrics
from helpers.screen import assert_readable, printed

from keylm.commands.compare import compare_runs
from keylm.commands.list_runs import show_runs
from keylm.common.errors import UserError
from keylm.run import Run, create, open_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two finished runs, one of which differs in a field, one that trains, and a damaged one."""
    runs = tmp_path / "runs"
    made_up_run(runs / "first")
    made_up_run(runs / "second", eval={"instructions": 40})
    training = create(open_run(runs / "first").recipe, runs / "training")
    training.begin("pretrain")
    write_metrics(training, "pretrain", num_steps=900)
    (runs / "damaged").mkdir()
    (runs / "damaged" / "recipe.yaml").write_text("name: [")
    (runs / "notes.txt").write_text("not a run")
    return runs


def test_runs_are_listed_and_damaged_ones_named(runs: Path) -> None:
    lines = {line.split()[0]: line for line in printed(lambda: show_runs(runs), 160).splitlines() if line}
    assert re.search(r"first +6\.52M +3\.69M \+ 3\.69M +1\.931 +75% +7 min 56 s +done", lines["first"])
    # 900 steps of the default recipe's 2,442
    assert re.search(r"training +6\.52M +3\.69M +pretrain 37%", lines["training"])
    assert "recipe.yaml" in lines["damaged"]
    shutil.rmtree(runs / "damaged")
    assert_readable(lambda: show_runs(runs))


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no runs: `keylm run RECIPE` makes one"):
        show_runs(tmp_path)


def test_runs_are_compared_on_one_page(runs: Path, tmp_path: Path) -> None:
    compared: list[Run] = [open_run(runs / name) for name in ("first", "second")]
    screen = printed(lambda: compare_runs(compared, tmp_path / "page.html"), 80)
    assert re.search(r"bits per byte, prose +1\.931 +1\.931", screen)
    text = (tmp_path / "page.html").read_text()
    assert re.search(r">eval\.instructions</td>.*>200</td>.*>40</td>", text)
    assert "eval.max_new_tokens" not in text
    # loss, learning rate, gradient norm, speed and two sources, in pretraining and in SFT
    assert text.count("<svg") == 12
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "first" in drawing
        assert "second" in drawing


def test_one_run_is_no_comparison(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name two to 8 runs"):
        compare_runs([open_run(runs / "first")], tmp_path / "page.html")
