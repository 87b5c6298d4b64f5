"""Uploads to a fake hub; what arrives there is loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import upload_server
from helpers.tiny_run import tiny_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from keylm.run import Run
from keylm.stages import STAGES, run_stage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = tiny_run(tmp_path_factory.mktemp("published") / "tiny")
    run_stage(run, STAGES[-1])
    return run


def test_one_repository_holds_all_files(run: Run, tmp_path: Path) -> None:
    with upload_server.serve() as hub:
        result = push(hub, run, "me/tiny", "--private")
    assert result.returncode == 0, result.stderr
    assert f"{hub.address}/me/tiny" in result.stdout
    assert hub.private == {"me/tiny": True}
    assert hub.num_commits == 1
    for name, content in hub.repositories["me/tiny"].items():
        (tmp_path / name).write_bytes(content)
    assert {"tiny-Q8_0.gguf", "Modelfile", "README.md", "config.json"} <= set(hub.repositories["me/tiny"])
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == run.metadata("export")["num_parameters"]
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template


def test_pushing_again_adds_a_commit(run: Run) -> None:
    with upload_server.serve() as hub:
        assert [push(hub, run, "me/tiny").returncode for _ in range(2)] == [0, 0]
    assert hub.num_commits == 2
    assert hub.private == {"me/tiny": False}


def test_errors_are_one_sentence(run: Run, tmp_path: Path) -> None:
    with upload_server.serve() as hub:
        denied = push(hub, run, "me/tiny", token="hf_other")
        misnamed = push(hub, run, "me/ti/ny")
        unexported = push(hub, tiny_run(tmp_path / "early"), "me/tiny")
    unreachable = push(hub, run, "me/tiny")
    assert [result.returncode for result in (denied, misnamed, unexported, unreachable)] == [2, 2, 2, 1]
    assert "hf auth login" in denied.stderr
    assert "OWNER/NAME" in misnamed.stderr
    assert "has no finished `export` stage" in unexported.stderr
    assert "cannot upload to http://127" in unreachable.stderr
    assert all(result.stderr.count("\n") == 1 for result in (denied, misnamed, unexported, unreachable))


def test_a_changed_file_is_not_uploaded(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "changed")
    run_stage(run, STAGES[-1])
    (run.stage("export") / "Modelfile").write_text("FROM elsewhere")
    with upload_server.serve() as hub:
        result = push(hub, run, "me/tiny")
    assert result.returncode == 1
    assert "Modelfile has changed since the export" in result.stderr
    assert hub.num_commits == 0


def push(
    hub: upload_server.Hub, run: Run, *arguments: str, token: str = upload_server.TOKEN
) -> subprocess.CompletedProcess:
    """Run the command as a user does, against the fake hub."""
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "keylm.cli", "push", str(run.folder), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
