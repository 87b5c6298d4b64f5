"""Commands that only read write nothing into the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.made_up_run import made_up_run
from typer.testing import CliRunner

from keylm import cli
from keylm.commands.report import write_results
from keylm.common.errors import UserError
from keylm.run import Run, open_run

STEP = {
    "step": 1,
    "tokens": 512,
    "loss": 6.0,
    "learning_rate": 1e-3,
    "grad_norm": 1.5,
    "tokens_per_second": 256.0,
    "memory_bytes": 2**30,
}


def written(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize(
    "arguments",
    [["watch", "RUN", "--once"], ["preview", "RUN"], ["sources", "RUN"], ["report", "RUN", "--output", "OUT"]],
)
def test_a_command_that_reads_writes_nothing(tiny_run: Run, tmp_path: Path, arguments: list[str]) -> None:
    metrics = tiny_run.stage("pretrain") / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text(json.dumps(STEP) + "\n")
    # As an editor leaves it, which is not how it would be saved.
    recipe = tiny_run.folder / "recipe.yaml"
    recipe.write_text(f"# mine\n{recipe.read_text()}")
    (tmp_path / "out").mkdir()
    before = written(tiny_run.folder)
    places = {"RUN": str(tiny_run.folder), "OUT": str(tmp_path / "out")}
    result = CliRunner().invoke(cli.app, [places.get(argument, argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert written(tiny_run.folder) == before


def test_the_report_of_a_changed_recipe_is_still_written(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run")
    write_results(open_run(run.folder, ["seed=99"]))
    assert json.loads((run.folder / "results.json").read_text())["stages"]


def test_a_folder_that_cannot_be_written_gets_a_sentence_after_the_headlines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_up_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot write the report to .*file/in \(Not a directory\): name another folder"
    ):
        write_results(run, tmp_path / "file" / "in")
    assert "instructions followed" in capsys.readouterr().out
