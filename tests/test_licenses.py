"""The licenses of what is required: those of the installed packages are those of the table, and none is the GPL."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
REQUIRED = [
    Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
]
TABLE = dict(re.findall(r"^\| ([\w-]+) \| (.+) \|$", (ROOT / "docs" / "licenses.md").read_text(), re.MULTILINE))
# Names that the metadata uses for the licenses of the table.
SPELLINGS = {
    "Apache-2.0": r"Apache",
    "BSD-3-Clause": r"BSD",
    "MIT": r"MIT",
    "PSF-based": r"Python Software Foundation|PSF",
}


def license_of(package: Distribution) -> str:
    """What the metadata of an installed package say of its license, in all the places where they can."""
    metadata = package.metadata
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    # Some packages put the whole text into the field, which quotes other licenses.
    return " ".join([metadata.get("License-Expression") or "", (metadata.get("License") or "")[:60], *classifiers])


def installed(requirements: list[Requirement]) -> dict[str, Distribution]:
    """All installed packages that the requirements need, directly or not."""
    packages: dict[str, Distribution] = {}
    pending = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    done = set()
    while pending:
        requirement, extra = pending.pop()
        if (requirement.name, extra) in done:
            continue
        done.add((requirement.name, extra))
        try:
            package = packages[requirement.name.lower()] = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        for line in package.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                pending += [(needed, inner) for inner in ("", *needed.extras)]
    return packages


def test_the_table_lists_what_is_required() -> None:
    assert set(TABLE) - {"required package"} == {requirement.name for requirement in REQUIRED}


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_the_table_says_what_the_package_says(requirement: Requirement) -> None:
    if requirement.marker and not requirement.marker.evaluate():
        pytest.skip("not required here")
    name = next(name for name in SPELLINGS if TABLE[requirement.name].startswith(name))
    assert re.search(SPELLINGS[name], license_of(distribution(requirement.name)))


def test_nothing_that_is_needed_is_under_the_gpl() -> None:
    packages = installed(REQUIRED)
    assert len(packages) > len(REQUIRED)
    strong = re.compile(r"(?<!L)(?<!Lesser )(?:A?GPL|General Public License)", re.IGNORECASE)
    assert not {name: license_of(package) for name, package in packages.items() if strong.search(license_of(package))}


def test_the_one_file_under_another_license_is_noticed() -> None:
    assert "CC BY-SA 3.0" in (ROOT / "NOTICE").read_text()
    assert "CC-BY-SA-3.0" in (ROOT / "pyproject.toml").read_text()
