"""Files: atomic writes, and damage that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keylm.common import files
from keylm.common.errors import UserError
from keylm.common.files import read_json, replace_folder, write_json


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    for damaged in (b'{"half": ', b'{"cut": "\xe6\x9d'):
        (tmp_path / "a.json").write_bytes(damaged)
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


def test_windows_flushes_files_that_it_may_write_and_no_folders(tmp_path, monkeypatch):
    opened = {}
    open_file = os.open

    def note(path, flags):
        opened[path.name] = flags
        return open_file(path, flags)

    monkeypatch.setattr(files.platform, "system", lambda: "Windows")
    monkeypatch.setattr(files.os, "open", note)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "file").write_text("text")
    files.replace_folder(tmp_path / "partial", tmp_path / "final")
    assert opened == {"file": os.O_RDWR}
