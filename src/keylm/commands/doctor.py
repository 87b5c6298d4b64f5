"""`keylm doctor`: what is installed, what this machine can do, and what is missing for which stage."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table
from rich.text import Text

from keylm.common.console import output
from keylm.common.hardware import available_memory_bytes, compute_dtype, describe_hardware, free_disk_bytes

_MIN_PYTHON = (3, 11)
_GIB = 2**30
_MIN_MEMORY_BYTES = 4 * _GIB
_MIN_DISK_BYTES = 5 * _GIB

PURPOSES = {
    "datasets": "data sets from the hub",
    "datatrove": "prepare, on several workers and for its filters",
    "fasteners": "data.clean.language_model",
    "fasttext-numpy2-wheel": "data.clean.language_model",
    "filelock": "data sets from the hub",
    "gguf": "export, chat, serve",
    "httptools": "serve",
    "httpx": "data sets from the hub",
    "huggingface_hub": "data sets from the hub, push, import",
    "jinja2": "report",
    "llguidance": "serve",
    "lm_eval": "lm_eval tasks in eval",
    "lxml_html_clean": "web pages as text",
    "markupsafe": "report",
    "matplotlib": "report",
    "numpy": "prepare and the stages after it",
    "openai": "tests of the server",
    "playwright": "tests of the chat page",
    "psutil": "every stage",
    "pyarrow": "parquet files, data sets from the hub",
    "pydantic": "every stage",
    "pyyaml": "every stage",
    "ray": "prepare.executor: ray",
    "rich": "every stage",
    "safetensors": "pretrain and the stages after it",
    "starlette": "serve",
    "tokenizers": "tokenizer and the stages after it",
    "torch": "pretrain and the stages after it",
    "transformers": "eval, export",
    "trafilatura": "web pages as text",
    "trl": "dpo, grpo",
    "typer": "every stage",
    "uvicorn": "serve",
    "uvloop": "serve",
    "xllamacpp": "export, chat, serve",
    "zstandard": "jsonl.zst files",
}
"""What each package is for. Which packages there are is read from keylm's own metadata."""


@dataclass(frozen=True)
class Requirement:
    """A package or a program that KeyLM uses, and how to get it."""

    name: str
    purpose: str
    """The stages or features that use it."""
    install: str
    """The command that installs it, or where to get it."""
    optional: bool = False
    """Whether every stage of a default recipe runs without it."""


PROGRAMS = (
    Requirement("llama-cli", "trying a GGUF in llama.cpp", "see github.com/ggml-org/llama.cpp", optional=True),
    Requirement("ollama", "running the Modelfile", "see ollama.com/download", optional=True),
    Requirement("npm", "export --web", "apt-get install npm", optional=True),
    Requirement("chromium", "tests of the chat page", "apt-get install chromium", optional=True),
    Requirement("go", "a test of Ollama's template", "apt-get install golang-go", optional=True),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    value: str
    """What was found: a version, a path, a size."""
    ok: bool = True
    advice: str = ""
    """How to fix what is wrong, or how to get what is absent."""


def show_doctor(folder: Path) -> bool:
    """Print the report, for runs that will be in `folder`; return whether every stage can run."""
    report = {
        "This machine": list(check_machine(folder)),
        "Packages": [check_package(package) for package in packages()],
        "Programs (all optional)": [check_program(program) for program in PROGRAMS],
    }
    for title, findings in report.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for finding in findings:
            value = Text(finding.value)
            if not finding.ok:
                value = Text.assemble(("✗ ", "red"), value)
            if finding.advice:
                # On a line of its own: at 80 columns a third column would break commands in two.
                value.append(f"\n{finding.advice}", style="dim")
            table.add_row(finding.subject, value)
        output.print(table)
    problems = [finding for findings in report.values() for finding in findings if not finding.ok]
    verdict = f"{len(problems)} to fix, marked ✗ above." if problems else "Every stage can run."
    output.print(verdict, style="bold")
    return not problems


def check_machine(folder: Path) -> Iterator[Finding]:
    """Check Python, memory, disk, processor and GPU; measure the speed of matrix products in the training dtype."""
    python_ok = sys.version_info >= _MIN_PYTHON
    yield Finding("Python", platform.python_version(), python_ok, "" if python_ok else "KeyLM needs 3.11 or later")
    memory = available_memory_bytes()
    memory_ok = memory >= _MIN_MEMORY_BYTES
    advice = (
        "" if memory_ok else "the quickstart needs 1.2 GiB; `keylm info RECIPE` estimates what another recipe needs"
    )
    yield Finding("memory", f"{memory / _GIB:.1f} GiB available", memory_ok, advice)
    # The folder for runs need not exist yet.
    disk = free_disk_bytes(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    disk_ok = disk >= _MIN_DISK_BYTES
    advice = "" if disk_ok else "tokens take two bytes each: free some space, or put the run on another disk"
    yield Finding("disk", f"{disk / _GIB:.1f} GiB free", disk_ok, advice)
    if find_spec("torch") is None:
        return
    import torch

    from keylm.model.flops import matmul_flops_per_second
    from keylm.recipe.model import ModelConfig

    hardware = describe_hardware()
    yield Finding("processor", f"{hardware['processor']}, {hardware['cores']} cores")
    dtype = compute_dtype("auto")
    gflops_per_second = matmul_flops_per_second(ModelConfig(), 2048, dtype) / 1e9
    yield Finding("matrix products", f"{gflops_per_second:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}")
    yield Finding("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use")


def packages() -> list[Requirement]:
    """The packages that keylm's metadata asks for: its dependencies, and those of its extras as optional ones."""
    requirements: list[Requirement] = []
    for entry in requires("keylm") or []:
        specifier, _, marker = entry.partition(";")
        match = re.match(r"[\w.-]+", specifier)
        assert match, entry
        name = match.group()
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        # Of the development tools only those that tests are skipped without.
        if extra and extra.group(1) == "dev" and name not in PURPOSES:
            continue
        install = f"pip install '{specifier.strip()}'" if not extra else f"pip install 'keylm[{extra.group(1)}]'"
        requirements.append(Requirement(name, PURPOSES.get(name, "KeyLM"), install, optional=extra is not None))
    return requirements


def check_package(package: Requirement) -> Finding:
    """Check whether a Python package is installed, and which version."""
    try:
        return Finding(package.name, version(package.name))
    except PackageNotFoundError:
        return Finding(package.name, "not installed", package.optional, f"{package.install}  (for {package.purpose})")


def check_program(program: Requirement) -> Finding:
    """Check whether a program is on the path."""
    path = shutil.which(program.name)
    if path:
        return Finding(program.name, path)
    return Finding(program.name, "not installed", program.optional, f"{program.install}  (for {program.purpose})")
