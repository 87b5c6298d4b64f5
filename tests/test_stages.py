"""The table of stages, and the order in which they run."""

from __future__ import annotations

import pytest

from keylm.common.errors import UserError
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.stages import STAGES, Stage, run_until


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_has_an_entry_point_and_a_section(stage: Stage) -> None:
    assert callable(stage.load_entry_point())
    assert stage.section in Recipe.model_fields
    assert stage.optional == (Recipe.model_fields[stage.section].default is None)
    assert bool(stage.label) == bool(stage.card_text) == stage.trains


def test_a_stage_that_the_recipe_lacks_is_named(prepared: Run) -> None:
    with pytest.raises(UserError, match=r"has no `dpo`: add the section, docs/dpo.md says how"):
        run_until(prepared, "dpo")


def test_a_stage_that_is_done_is_skipped(prepared: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (prepared.stage("tokenizer") / "tokenizer.json").stat().st_mtime_ns
    run_until(prepared, "tokenizer")
    assert (prepared.stage("tokenizer") / "tokenizer.json").stat().st_mtime_ns == before
    assert "already done" in capsys.readouterr().err


def test_time_and_memory_are_recorded(prepared: Run) -> None:
    metadata = prepared.metadata("prepare")
    assert metadata["seconds"] > 0
    assert metadata["peak_memory_bytes"] > 10 * 2**20


def test_a_stage_needs_those_before_it(tiny_run: Run) -> None:
    with pytest.raises(UserError, match=r"`sft` needs `pretrain` first: run `keylm pretrain"):
        run_until(tiny_run, "sft")
    with pytest.raises(UserError, match=r"no finished `pretrain` stage"):
        tiny_run.metadata("pretrain")
