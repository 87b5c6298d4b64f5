"""The doctor: it reports what is here, and how to get what is not."""

from __future__ import annotations

import re
import shutil
from importlib.metadata import requires, version
from pathlib import Path

import psutil
import pytest
from helpers.screen import assert_readable

from keylm.commands import doctor
from keylm.commands.doctor import PURPOSES, Requirement, check_machine, check_package, check_program, show_doctor
from keylm.model import flops

ABSENT = Requirement("no-such-package", "serve", "pip install 'no[such]'")


@pytest.fixture(autouse=True)
def _fixed_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured anew at each call, so that two screens can be compared."""
    monkeypatch.setattr(flops, "matmul_flops_per_second", lambda *_: 1e11)
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda: 20 * 2**30)
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda _: 20 * 2**30)


def test_here_every_stage_can_run(tmp_path: Path) -> None:
    screen = assert_readable(lambda: show_doctor(tmp_path))
    assert version("torch") in screen
    assert "100 GFLOP/s" in screen
    assert "Every stage can run." in screen


def test_every_dependency_is_checked() -> None:
    """The doctor reads the metadata; nothing is exempt, and everything it names has a purpose and is installed."""
    checked = {package.name: package for package in doctor.packages()}
    for entry in requires("keylm") or []:
        name = re.split(r"[^\w.-]", entry)[0]
        if "extra ==" not in entry:
            assert not checked[name].optional
            assert checked[name].install == f"pip install '{entry.partition(';')[0].strip()}'"
        elif "dev" not in entry:
            assert checked[name].optional
    assert set(checked) <= set(PURPOSES)
    assert all(check_package(package).ok for package in checked.values() if not package.optional)


def test_extras_are_optional_and_installed_by_name() -> None:
    trl = next(package for package in doctor.packages() if package.name == "trl")
    assert trl == Requirement("trl", "dpo, grpo", "pip install 'keylm[preference]'", optional=True)


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = doctor.packages()
    monkeypatch.setattr(doctor, "packages", lambda: [*packages, ABSENT])
    screen = assert_readable(lambda: show_doctor(tmp_path))
    assert not show_doctor(tmp_path)
    assert "no-such-package" in screen
    assert "pip install 'no[such]'  (for serve)" in screen
    assert "1 to fix" in screen


def test_what_is_optional_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_package(Requirement("no-such-package", "tests", "pip install x", optional=True)).ok
    monkeypatch.setattr(shutil, "which", lambda _: None)
    absent = check_program(Requirement("go", "a test", "apt-get install golang-go", optional=True))
    assert absent.ok
    assert absent.advice.startswith("apt-get install golang-go")


def test_a_full_disk_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda _: 10)
    disk = next(row for row in check_machine(tmp_path) if row.subject == "disk")
    assert not disk.ok
    assert "free some space" in disk.advice


def test_a_folder_that_is_not_there_yet_has_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk_bytes", lambda folder: psutil.disk_usage(str(folder)).free)
    disk = next(row for row in check_machine(tmp_path / "new" / "runs") if row.subject == "disk")
    assert disk.value.endswith("GiB free")
