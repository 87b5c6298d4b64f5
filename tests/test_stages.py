"""The table of stages, and the order in which they run."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run

from keylm import stages
from keylm.common.errors import StoppedError, UserError
from keylm.common.folder_lock import lock_folder
from keylm.recipe import Recipe
from keylm.run import Run, open_run
from keylm.stages import STAGES, Stage, run_all, run_until, stages_of


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_has_an_entry_point_and_a_section(stage: Stage) -> None:
    assert callable(stage.load_entry_point())
    assert stage.section in Recipe.model_fields
    assert stage.optional == (Recipe.model_fields[stage.section].default is None)
    assert bool(stage.label) == bool(stage.card_text) == stage.trains


def test_a_stage_that_the_recipe_lacks_is_named(prepared: Run) -> None:
    with pytest.raises(UserError, match=r"has no `dpo`: add the section, `keylm docs dpo` says how"):
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


def test_a_run_that_another_command_is_at_work_in_is_refused(prepared: Run) -> None:
    with (
        lock_folder(prepared.folder),
        pytest.raises(UserError, match=r"run is in use by process \d+ \(`keylm .*`\) since .*: wait until it ends"),
    ):
        run_until(prepared, "tokenizer")
    run_until(prepared, "tokenizer")


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        ("tokenizer", []),
        ("pretrain", ["tokenizer", "prepare"]),
        ("sft", ["tokenizer", "prepare", "pretrain"]),
        ("export", ["tokenizer", "prepare", "pretrain", "sft", "eval"]),
    ],
)
def test_remake_deletes_a_stage_and_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, kept: list[str]
) -> None:
    run, begun = made_up_run(tmp_path / "run"), []
    monkeypatch.setattr(stages, "run_stage", lambda run, stage: begun.append((stage.name, run.is_finished(stage.name))))
    run_all(run, stage)
    assert [name for name, is_finished in begun if is_finished] == kept
    assert {path.name for path in run.folder.iterdir() if path.is_dir()} == set(kept)


@pytest.mark.parametrize(
    ("override", "remade"), [("eval.instructions=7", ["eval", "export"]), ("export.temperature=1", ["export"])]
)
def test_cheap_stages_are_made_again_where_the_recipe_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    remade: list[str],
) -> None:
    run = open_run(made_up_run(tmp_path / "run").folder, [override])
    stale = [run.stage(stage) / "stale" for stage in ("eval", "export")]
    for path in stale:
        path.write_text("")
    monkeypatch.setattr(Stage, "load_entry_point", lambda stage: lambda run: {"by": stage.name})
    with pytest.raises(UserError, match=f"`export` needs `{remade[0]}` first") if "eval" in remade else nullcontext():
        run_until(run, "export")
    run_all(run)
    assert [stage.name for stage in stages_of(run) if run.metadata(stage.name).get("by")] == remade
    assert [path.parent.name for path in stale if not path.exists()] == remade
    key = override.partition("=")[0]
    assert capsys.readouterr().err.count(f"made again: `{key}:") == len(remade)


def test_ctrl_c_in_a_stage_says_how_to_go_on(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "load_entry_point", lambda stage: lambda run: signal.raise_signal(signal.SIGINT))
    with pytest.raises(StoppedError, match="stopped in `pretrain`, what is done is kept: run the same command") as stop:
        run_until(tiny_run, "pretrain")
    assert stop.value.exit_code == 130
    assert not tiny_run.is_finished("pretrain")


def test_imported_weights_are_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(made_up_run(tmp_path / "run").folder, ["data.sources=[]"])
    run.finish("pretrain", {"imported": "someone/model"})
    monkeypatch.setattr(stages, "run_stage", lambda *_: None)
    with pytest.raises(UserError, match="--remake pretrain: it was imported from someone/model; import it again"):
        run_all(run, "pretrain")
    run_all(run, "tokenizer")
    assert run.weights("pretrain").exists()
    assert not run.stage("sft").exists()
