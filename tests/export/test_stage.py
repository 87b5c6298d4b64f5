"""The export stage as a whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.tiny_run import tiny_run

from keylm.common.errors import UserError
from keylm.common.files import CHECKSUMS
from keylm.export.stage import run_export


def test_metadata_and_checksums_cover_every_file(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    metadata = run_export(run)
    folder = run.stage("export")
    exported = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(metadata["files"]) == exported - {"begun.json", CHECKSUMS}
    assert all((folder / name).stat().st_size == file["bytes"] for name, file in metadata["files"].items())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS], cwd=folder, check=True)


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    assert run_export(run) == run_export(run)


def test_without_weights_the_error_names_the_command(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run")
    run.weights("sft").unlink()
    with pytest.raises(UserError, match="run `keylm sft"):
        run_export(run)
