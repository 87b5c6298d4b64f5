"""The wheel, installed in a new environment and used in an empty folder: nothing of the repository is needed."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_wheel_is_all_that_is_needed(environment: Path, tmp_path: Path) -> None:
    def keylm_prints(*arguments: str, question: str | None = None) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [environment / "keylm", *arguments]
        done = subprocess.run(
            command, input=question, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert keylm_prints("--version") == f"keylm {keylm.__version__}\n"
    assert keylm_prints("docs") == (ROOT / "docs" / "index.md").read_text()
    assert keylm_prints("docs", "recipe") == (ROOT / "docs" / "recipe.md").read_text()
    assert "6,230,016" in keylm_prints("info", "quickstart")
    assert not list(tmp_path.iterdir())
    keylm_prints("run", "quickstart", *(part for key, value in SIZES.items() for part in ("--set", f"{key}={value}")))
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()
    assert keylm_prints("chat", "runs/quickstart", "--temperature", "0", question="Write about rivers.")
