"""The packages that the container installs are all that `keylm serve` imports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import openai
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from keylm.run import Run

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def installed_packages() -> set[str]:
    """What the Dockerfile names, and what that requires."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    [names] = re.findall(r"--constraint requirements\.txt +(.+)", text)
    waiting, packages = names.split(), {"keylm"}
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in packages:
            continue
        packages.add(name)
        try:
            required = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [need.name for need in required if not need.marker or need.marker.evaluate({"extra": ""})]
    return packages


def test_the_server_runs_with_the_packages_of_the_container(exported: Run, tmp_path: Path) -> None:
    packages = installed_packages()
    absent = {
        module
        for module, names in packages_distributions().items()
        if not packages & {canonicalize_name(name) for name in names}
    }
    assert {"torch", "transformers", "pandas"} <= absent
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(names=absent))
    paths = [str(tmp_path), str(ROOT / "src")]
    command = [sys.executable, "-m", "keylm", "serve", str(exported.stage("export")), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "KEYLM_API_KEY": "key"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        url = next(line for line in process.stderr if "http" in line).split(" is at ")[1].split()[0]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)
        answer = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Hi"}],
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a", "b"]}}},
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert json.loads(answer.choices[0].message.content) in ("a", "b")


def test_the_packages_of_the_container_are_pinned() -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert installed_packages() - {"keylm"} <= {canonicalize_name(name) for name in pinned}
