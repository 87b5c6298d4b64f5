import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.made_up_run import made_up_run

from keylm.commands.report import write_results
from keylm.common.errors import UserError
from keylm.common.files import read_json
from keylm.evaluate.results import collect_results
from keylm.run import Run, create
from keylm.stages import STAGES, TRAINING_STAGES, run_until

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
NAMES = {
    "STAGE": {stage.name for stage in STAGES},
    "PART": {"pretrain", "sft"},
    "WEIGHTS": {stage.name for stage in TRAINING_STAGES},
}
"""What the words in capitals may stand for, where that is not anything."""


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        yield path
        return
    for key, child in value.items():
        yield from leaves(child, (*path, key))


def documented() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def stands_for(key: str, leaf: tuple[str, ...]) -> bool:
    parts = key.split(".")
    return len(parts) == len(leaf) and all(map(fits, parts, leaf))


def fits(part: str, name: str) -> bool:
    return name in NAMES.get(part, {name}) if part.isupper() else name == part


def test_documented_keys_are_the_real_ones(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    results = collect_results(run)
    write_results(run)
    assert results == read_json(tmp_path / "results.json")
    for leaf in leaves(results):
        assert any(stands_for(key, leaf) for key in documented()), f"{leaf} is not in docs/report.md"
    for key in documented():
        assert any(stands_for(key, leaf) for leaf in leaves(results)), f"{key} is documented, but is not there"


def test_a_run_that_has_just_begun_has_results(tmp_path: Path) -> None:
    run = create(made_up_run(tmp_path / "done").recipe, tmp_path / "new")
    results = collect_results(run)
    assert (results["stages"], results["bits_per_byte"], results["lm_eval"]) == ({}, {}, {})
    assert results["tokens"] == {"prepared": {}, "trained": {}}


def test_a_lost_measurement_is_named(tmp_path: Path) -> None:
    run = made_up_run(tmp_path)
    (run.stage("eval") / "lm_eval.json").unlink()
    with pytest.raises(UserError, match=r"lm_eval\.json is missing: delete .*stage\.json and run `keylm eval"):
        collect_results(run)


@pytest.fixture
def evaluated(tiny_run: Run) -> Run:
    for stage in ("pretrain", "sft", "eval"):
        run_until(tiny_run, stage)
    return tiny_run


def test_a_real_run_is_measured_once(evaluated: Run) -> None:
    folder = evaluated.stage("eval")
    bits = read_json(folder / "bits_per_byte.json")
    assert set(bits) == {"prose", "talk"}
    for row in bits.values():
        assert row["bytes"] >= 2000
        assert 0 < row["pretrain"] < 8.65 * row["tokens"] / row["bytes"]  # log2(400): knowing nothing
        assert row["sft"] > 0
        assert row["xz"] > 0
    scores = read_json(folder / "instruction_following.json")
    assert list(scores) == ["pretrain", "sft"]
    assert scores["sft"]["prompts"] <= 8
    for leaf in leaves(collect_results(evaluated)):
        assert any(stands_for(key, leaf) for key in documented()), leaf
    write_results(evaluated)
    assert "after SFT" in (evaluated.folder / "report.html").read_text()

    (folder / "stage.json").unlink()
    others = set(folder.glob("*.json")) - {folder / "bits_per_byte.json", folder / "begun.json"}
    before = {path.name: path.stat().st_mtime_ns for path in others}
    (folder / "bits_per_byte.json").unlink()
    run_until(evaluated, "eval")
    assert read_json(folder / "bits_per_byte.json") == bits
    assert before == {path.name: path.stat().st_mtime_ns for path in others}


def test_importing_the_package_stays_light() -> None:
    code = "import sys, keylm.evaluate.stage; print(not {'torch', 'lm_eval', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"True"
