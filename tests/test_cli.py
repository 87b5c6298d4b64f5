"""The command line: help that is light, and the exit codes and sentences of failures."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

import keylm as keylm_package
from keylm import cli
from keylm.common.errors import UserError
from keylm.stages import STAGES

# What typer needs, and what Python and its virtual environments load by themselves.
HELP_PACKAGES = {
    *("typer", "annotated_doc", "click", "shellingham", "typing_extensions", "colorama"),
    *("rich", "attr", "markdown_it", "mdurl", "pygments"),
    *("__main__", "_distutils_hack", "sitecustomize", "usercustomize"),
}
COMMANDS = get_command(cli.app).commands


def keylm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "keylm.cli", *arguments], capture_output=True, text=True)


def test_help_imports_little() -> None:
    code = (
        "import sys; from keylm.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    shown, _, names = output.partition("MODULES")
    assert "tokenizer → prepare → pretrain → sft → eval → export" in " ".join(shown.split())
    modules = set(names.split())
    ours = {name for name in modules if name.partition(".")[0] == "keylm"}
    assert ours == {"keylm", "keylm.cli", "keylm.common", "keylm.common.errors"}
    assert {name.partition(".")[0] for name in modules - ours} <= HELP_PACKAGES | sys.stdlib_module_names
    assert "importlib.metadata" not in modules  # it reads the email package, a tenth of the whole


def test_the_version_is_that_of_the_installed_package() -> None:
    assert keylm_package.__version__ == version("keylm")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli.app, [name, "--help"]).output
    assert max(cell_len(line) for line in shown.splitlines()) <= 80
    assert "…" not in shown
    words = " ".join(shown.split())
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name} has no help"
        assert parameter.name == "help" or parameter.opts[0] in words


def test_the_version_is_printed() -> None:
    assert keylm("--version").stdout == f"keylm {version('keylm')}\n"


def test_every_stage_has_a_command() -> None:
    assert {stage.name for stage in STAGES} <= set(COMMANDS)


def test_a_users_mistake_exits_with_code_2(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nmodell: {}\n")
    result = keylm("run", str(recipe))
    assert result.returncode == 2
    assert result.stderr.strip().endswith("`modell` is not a key of a recipe; did you mean `model`?")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("option", [("--limit", "5"), ("--json", "scores.json")])
def test_options_that_the_eval_stage_has_no_use_for_are_refused(option: tuple[str, str], tmp_path: Path) -> None:
    result = keylm("eval", str(tmp_path), *option)
    assert result.returncode == 2
    assert f"{option[0]} needs --tasks" in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = keylm("--debug", "run", str(tmp_path / "absent.yaml"))
    assert "Traceback" in result.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: x\ndata: {{sources: [{{name: mine, type: files, path: {tmp_path}/none*.txt}}]}}\n")
    result = keylm("run", str(recipe), "--run", str(tmp_path / "run"))
    assert result.returncode == 2
    assert "none*.txt" in result.stderr
    assert "Traceback" not in result.stderr


def test_info_counts_the_published_parameters() -> None:
    recipe = Path(__file__).parent.parent / "recipes" / "quickstart.yaml"
    result = keylm("info", str(recipe))
    assert result.returncode == 0
    assert "6,230,016" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["eval", "x", "--limit", "0"], "--limit must be at least 1, not 0"),
        (["eval", "x", "--limit", "-1"], "--limit must be at least 1, not -1"),
        (["chat", "x", "--temperature", "nan"], "--temperature must be from 0 to 100, not nan"),
        (["chat", "x", "--temperature", "inf"], "--temperature must be from 0 to 100, not inf"),
        (["chat", "x", "--temperature", "-1"], "--temperature must be from 0 to 100, not -1"),
        (["chat", "x", "--threads", "0"], "--threads must be from 1 to 1024, not 0"),
        (["serve", "x", "--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["preview", "x", "--step", "-1"], "--step must be at least 0, not -1"),
        (["preview", "x", "--rows", "0"], "--rows must be at least 1, not 0"),
    ],
)
def test_a_number_out_of_range_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        cli.app(arguments)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "runs/x"), OSError(28, "No space left"), ValueError("a\nb")]
)
def test_whatever_goes_wrong_is_one_line(error: Exception, monkeypatch, capsys) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["keylm"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code in (1, 2)
    assert re.fullmatch("keylm: .+\n", capsys.readouterr().err)
    monkeypatch.setattr(sys, "argv", ["keylm", "--debug"])
    with pytest.raises(type(error)):
        cli.main()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_run_in_the_place_of_a_file_is_one_sentence(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "r.yaml").write_text("name: x\n")
    result = keylm("tokenizer", str(tmp_path / "r.yaml"), "--run", str(tmp_path / place))
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "file") in result.stderr
