"""Files: atomic writes, and damage that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

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
