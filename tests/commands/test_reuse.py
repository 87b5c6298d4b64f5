"""`keylm run --from`: a run begins with what another one made from the same settings, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run

from keylm.commands.reuse import reuse_stages
from keylm.common.errors import UserError
from keylm.recipe.fingerprint import stage_inputs
from keylm.run import Run, open_run
from keylm.stages import run_until


def finished(run: Run) -> list[str]:
    return [stage for stage in stage_inputs(run.recipe) if run.is_finished(stage)]


@pytest.mark.parametrize(
    ("override", "taken"),
    [
        ("train.checkpoint_minutes=3", ["tokenizer", "prepare", "pretrain", "sft", "eval", "export"]),
        ("export.temperature=1", ["tokenizer", "prepare", "pretrain", "sft", "eval"]),
        ("sft.tokens=1000", ["tokenizer", "prepare", "pretrain"]),
        ("train.tokens=1000", ["tokenizer", "prepare"]),
        ("seed=99", []),
    ],
)
def test_what_holds_is_taken(tmp_path: Path, override: str, taken: list[str]) -> None:
    source = made_up_run(tmp_path / "source")
    run = open_run(source.folder, [override], tmp_path / "run")
    reuse_stages(source.folder, run)
    assert finished(run) == taken
    for stage in taken:
        assert run.is_done(stage)


def test_the_other_run_stays_as_it_is(tmp_path: Path) -> None:
    source = made_up_run(tmp_path / "source")
    before = {path: path.read_bytes() for path in source.folder.rglob("*") if path.is_file()}
    run = open_run(source.folder, ["sft.tokens=1000"], tmp_path / "run")
    reuse_stages(source.folder, run)
    run.begin("pretrain")
    shutil.rmtree(run.stage("pretrain"))
    assert {path: path.read_bytes() for path in source.folder.rglob("*") if path.is_file()} == before
    assert open_run(run.folder).recipe.sft.tokens == 1000


def test_what_the_run_has_is_kept(tmp_path: Path) -> None:
    source = made_up_run(tmp_path / "source")
    run = open_run(source.folder, None, tmp_path / "run")
    reuse_stages(source.folder, run)
    run.finish("eval", {"mine": True})
    reuse_stages(source.folder, run)
    assert run.metadata("eval")["mine"]


def test_sources_that_did_not_change_are_taken(prepared: Run, tmp_path: Path) -> None:
    run = open_run(prepared.folder, ["sft.sources.talk.num_documents=40"], tmp_path / "run")
    reuse_stages(prepared.folder, run)
    assert not run.is_done("prepare")
    shards = [path for path in run.folder.rglob("*.npy") if "pretrain" in path.parts]
    taken = {path: path.stat().st_mtime_ns for path in shards}
    assert taken
    run_until(run, "prepare")
    assert {path: path.stat().st_mtime_ns for path in shards} == taken
    assert run.metadata("prepare")["sft"]["talk"]["train"]["documents"] < 41
    assert run.metadata("prepare")["pretrain"] == prepared.metadata("prepare")["pretrain"]


def test_tokens_of_another_tokenizer_are_not_taken(prepared: Run, tmp_path: Path) -> None:
    """The second source changed. The first one is the same text, but the tokenizer was trained on both."""
    run = open_run(prepared.folder, ["data.sources.talk.num_documents=40"], tmp_path / "run")
    reuse_stages(prepared.folder, run)
    assert not list(run.folder.rglob("*.npy"))


def test_a_run_is_not_made_from_itself(tmp_path: Path) -> None:
    source = made_up_run(tmp_path / "source")
    with pytest.raises(UserError, match="cannot be made from itself, name another folder with --run"):
        reuse_stages(source.folder, source)
    with pytest.raises(UserError, match="is not a run"):
        reuse_stages(tmp_path, source)
