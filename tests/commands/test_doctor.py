"""The doctor: it finds what is here, and says how to get what is not."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from keylm.commands import doctor
from keylm.commands.doctor import PACKAGES, Requirement, installed, machine, present, show_doctor


def test_here_every_stage_can_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show_doctor(tmp_path)
    screen = capsys.readouterr().out
    assert version("torch") in screen
    assert "GFLOP/s" in screen


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        doctor, "PACKAGES", (*PACKAGES, Requirement("no-such-package", "serve", "pip install 'no[such]'"))
    )
    assert not show_doctor(tmp_path)
    assert "pip install 'no[such]'" in capsys.readouterr().out.replace("\n", " ")


def test_what_is_optional_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed(Requirement("no-such-package", "tests", "pip install x", needed=False)).good
    monkeypatch.setattr(shutil, "which", lambda _: None)
    absent = present(Requirement("go", "a test", "apt-get install golang-go", needed=False))
    assert absent.good
    assert absent.advice.startswith("apt-get install golang-go")


def test_a_full_disk_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    disk = next(row for row in machine(tmp_path) if row.subject == "free disk")
    assert not disk.good
    assert "make room" in disk.advice


def test_every_dependency_of_the_stages_is_looked_for() -> None:
    assert all(installed(part).good for part in PACKAGES)
