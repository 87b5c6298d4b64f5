"""What `keylm export --web` takes from where, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from keylm.common.errors import KeyLMError, UserError
from keylm.run import Run
from keylm.serve import static_page


def test_another_package_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not the folder of @wllama/wllama 2\.3\.7: its LICENCE"):
        static_page.write_static_page(run, tmp_path)
    assert not (run.stage("export") / "web").exists()


def test_a_run_in_use_is_not_written_to(run: Run, tmp_path: Path) -> None:
    with run.lock(), pytest.raises(UserError, match="is in use by process"):
        static_page.write_static_page(run, tmp_path)


def test_a_changed_package_is_refused(run: Run, package: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(package, tmp_path / "package")
    with (changed / "esm" / "single-thread" / "wllama.wasm").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"single-thread/wllama\.wasm is missing or another"):
        static_page.write_static_page(run, changed)


def test_without_npm_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"npm, which comes with Node\.js"):
        static_page.write_static_page(run)


def test_what_npm_says_of_a_failure_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_npm(tmp_path, monkeypatch, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(KeyLMError, match=r"cannot fetch.*ENOTFOUND"):
        static_page.write_static_page(run)


def test_npm_installs_one_version_and_runs_nothing(
    run: Run, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    line = f'echo "$@" > {asked}; while [ "$1" != --prefix ]; do shift; done; mkdir -p "$2/node_modules/@wllama"; '
    stand_in_for_npm(tmp_path, monkeypatch, line + f'cp -r {package} "$2/node_modules/@wllama/wllama"')
    folder = static_page.write_static_page(run)
    assert f"{static_page.PACKAGE}@{static_page.VERSION}" in asked.read_text()
    assert "--ignore-scripts" in asked.read_text()
    assert (folder / "wllama" / "wllama.wasm").stat().st_size > 2e6


def stand_in_for_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """Put a program named npm before all others."""
    program = folder / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
