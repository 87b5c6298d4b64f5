"""The run folder: what is done, what it was made from, and writes that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from keylm.common.errors import UserError
from keylm.common.files import read_json, replace_folder, write_json
from keylm.run import Run, open_run
from keylm.stages import run_until


def test_a_stage_that_is_done_is_skipped(prepared: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (prepared.stage("tokenizer") / "tokenizer.json").stat().st_mtime_ns
    run_until(prepared, "tokenizer")
    assert (prepared.stage("tokenizer") / "tokenizer.json").stat().st_mtime_ns == before
    assert "already done" in capsys.readouterr().err


def test_facts_keep_time_and_memory(prepared: Run) -> None:
    facts = prepared.metadata("prepare")
    assert facts["seconds"] > 0
    assert facts["peak_memory_bytes"] > 10 * 2**20


def test_a_stage_made_from_other_settings_is_refused(prepared: Run, tmp_path: Path) -> None:
    other = Run(prepared.folder, prepared.recipe.model_copy(update={"seed": 99}))
    with pytest.raises(UserError, match="was made from other settings"):
        run_until(other, "prepare")


def test_what_does_not_shape_a_stage_does_not_spoil_it(prepared: Run) -> None:
    changed = open_run(prepared.folder, ["train.tokens=1e6", "data.sources.prose.weight=3", "export.temperature=1"])
    assert changed.is_done("prepare")
    open_run(prepared.folder, ["train.tokens=15360", "data.sources.prose.weight=0.6", "export.temperature=0.7"])


def test_a_stage_needs_those_before_it(tiny_run: Run) -> None:
    with pytest.raises(UserError, match=r"`sft` needs `pretrain` first: run `keylm pretrain"):
        run_until(tiny_run, "sft")
    with pytest.raises(UserError, match=r"no finished `pretrain` stage"):
        tiny_run.metadata("pretrain")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no recipe\.yaml"):
        open_run(tmp_path)


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"half": ')
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_writes_leave_nothing_partial(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 2}
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "file").write_text("new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "old").write_text("old")
    replace_folder(tmp_path / "new.partial", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "file", "new"]
