"""The wheel, installed in a new environment and used in an empty folder: nothing of the repository is needed."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.own_texts import write_chats, write_texts
from rich.cells import cell_len

import keylm

ROOT = Path(__file__).parents[1]
SIZES = {
    "model.vocab_size": 1000,
    "tokenizer.sample_bytes": 2e5,
    "data.sources.installed-docs.max_documents": 60,
    "data.sources.instructions.num_documents": 200,
    "data.sources.drills.num_documents": 60,
    "train.tokens": 4096,
    "sft.tokens": 4096,
    "sft.sources.instructions.num_documents": 200,
    "eval.instructions": 4,
    "eval.num_answers": 2,
    "eval.max_new_tokens": 4,
    "eval.bits_per_byte_bytes": 2000,
    "eval.typo_passages": 2,
    "eval.typo_instructions": 1,
}
"""The quickstart in seconds."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel; what it depends on is found where the tests find it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, because building leaves files in the source tree.
    for name in ("src", "docs", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    # Behind the environment's own packages, and without the links of editable installations.
    own_packages = sysconfig.get_path("purelib", vars={"base": str(folder / "env")})
    Path(own_packages, "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "env" / "bin"


@pytest.fixture
def keylm_prints(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a command of the installed wheel in an empty folder, 80 columns wide, and return what it prints to stdout."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "80"}

    def run(*arguments: str, question: str | None = None) -> str:
        command = [environment / "keylm", *arguments]
        done = subprocess.run(
            command, input=question, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_wheel_is_all_that_is_needed(keylm_prints: Callable[..., str], tmp_path: Path) -> None:
    assert keylm_prints("--version") == f"keylm {keylm.__version__}\n"
    assert keylm_prints("docs") == (ROOT / "docs" / "index.md").read_text()
    assert keylm_prints("docs", "recipe") == (ROOT / "docs" / "recipe.md").read_text()
    assert "6,230,016" in keylm_prints("info", "quickstart")
    assert not list(tmp_path.iterdir())
    keylm_prints("run", "quickstart", *(part for key, value in SIZES.items() for part in ("--set", f"{key}={value}")))
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()
    assert keylm_prints("chat", "runs/quickstart", "--temperature", "0", question="Write about rivers.")


@pytest.mark.slow
def test_from_texts_to_an_answer(keylm_prints: Callable[..., str], tmp_path: Path) -> None:
    """The commands of docs/first-minutes.md."""
    write_texts(tmp_path / "texts")
    write_chats(tmp_path / "chats.jsonl")
    screens = [
        keylm_prints("new", "mine", "--text", "texts", "--chat", "chats.jsonl", "--minutes", "2"),
        keylm_prints("run", "mine.yaml"),
    ]
    assert max(cell_len(line) for screen in screens for line in screen.splitlines()) <= 80
    for label in ("bits per byte", "held-out answers", "read", "cost", "next"):
        assert re.search(rf"^{label}  ", screens[1], re.MULTILINE)
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    answer = keylm_prints("chat", "runs/mine", "--temperature", "0", question="Where is tree 41?")
    assert answer.startswith("It is behind the ")
