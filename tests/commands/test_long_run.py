"""The question before a training of days."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_recipe import write_tiny_recipe
from rich.prompt import Confirm

from keylm.commands import long_run
from keylm.commands.long_run import confirm_long_run, least_seconds
from keylm.common.errors import UserError
from keylm.recipe import load_recipe
from keylm.run import Run, open_run

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def long(tmp_path: Path) -> Run:
    return open_run(write_tiny_recipe(tmp_path), ["train.tokens=1e15"], tmp_path / "run")


def answer(monkeypatch: pytest.MonkeyPatch, yes: bool) -> list[str]:
    asked: list[str] = []
    monkeypatch.setattr(long_run.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(Confirm, "ask", lambda question, **_: asked.append(question) or yes)
    return asked


def test_a_training_of_years_is_only_begun_when_the_user_says_so(long: Run, monkeypatch) -> None:
    asked = answer(monkeypatch, yes=False)
    with pytest.raises(UserError, match="keylm new"):
        confirm_long_run(long)
    assert "years" in asked[0]
    assert not long.folder.exists()
    answer(monkeypatch, yes=True)
    confirm_long_run(long)


def test_a_short_training_is_not_asked_about(tmp_path: Path, monkeypatch) -> None:
    asked = answer(monkeypatch, yes=False)
    confirm_long_run(open_run(write_tiny_recipe(tmp_path), folder=tmp_path / "run"))
    assert not asked


def test_a_training_that_was_begun_goes_on(long: Run, monkeypatch) -> None:
    asked = answer(monkeypatch, yes=False)
    long.stage("pretrain").mkdir(parents=True)
    confirm_long_run(long)
    assert not asked


def test_without_a_terminal_nothing_is_asked(long: Run, monkeypatch) -> None:
    asked = answer(monkeypatch, yes=False)
    monkeypatch.setattr(long_run.sys.stdin, "isatty", lambda: False, raising=False)
    confirm_long_run(long)
    assert not asked


def test_the_published_recipe_takes_longer_than_a_day_on_any_processor(monkeypatch) -> None:
    monkeypatch.setattr(long_run, "matmul_flops_per_second", lambda *_: 1e13)
    # 1.02e19 operations in pretraining, by docs/scaling.md.
    seconds = least_seconds(load_recipe(RECIPES / "keylm-75m.yaml"))
    assert 1.02e6 < seconds < 1.2e6
    assert least_seconds(load_recipe(RECIPES / "quickstart.yaml")) < 60
