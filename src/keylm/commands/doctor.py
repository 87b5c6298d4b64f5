"""`keylm doctor`: what is installed here, what this machine can do, and what is missing for which stage."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from keylm.common.console import output

_MIN_PYTHON = (3, 11)
_GIB = 2**30
_MIN_MEMORY = 4 * _GIB
_MIN_DISK = 5 * _GIB


@dataclass(frozen=True)
class Requirement:
    """Something that a stage needs, and the command that brings it."""

    name: str
    stages: str
    install: str
    needed: bool = True
    """Whether the stage cannot do without; the rest only adds to it."""


PACKAGES = (
    Requirement("torch", "pretrain, sft, eval, export", "pip install torch"),
    Requirement("tokenizers", "tokenizer and all after it", "pip install tokenizers"),
    Requirement("pyarrow", "prepare, from parquet and from the hub", "pip install pyarrow"),
    Requirement("datasets", "prepare, from the hub", "pip install datasets"),
    Requirement("lm_eval", "eval, for its tasks", "pip install 'lm_eval[hf,ifeval]'"),
    Requirement("matplotlib", "report", "pip install matplotlib"),
    Requirement("transformers", "eval, export", "pip install transformers"),
    Requirement("gguf", "export, chat, serve", "pip install gguf"),
    Requirement("xllamacpp", "export, chat, serve", "pip install xllamacpp"),
    Requirement("huggingface_hub", "prepare, push and import, from and to the hub", "pip install huggingface_hub"),
    Requirement("trl", "dpo, grpo", "pip install 'keylm[preference]'", needed=False),
    Requirement("openai", "tests", "pip install openai", needed=False),
    Requirement("playwright", "tests of the chat page", "pip install playwright", needed=False),
)
PROGRAMS = (
    Requirement("llama-cli", "trying a GGUF in llama.cpp itself", "see github.com/ggml-org/llama.cpp", needed=False),
    Requirement("ollama", "running the Modelfile", "see ollama.com/download", needed=False),
    Requirement("npm", "export --web", "apt-get install npm", needed=False),
    Requirement("chromium", "tests of the chat page", "apt-get install chromium", needed=False),
    Requirement("go", "a test of Ollama's template", "apt-get install golang-go", needed=False),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    found: str
    good: bool
    advice: str = ""
    """The way out, where something is wrong or absent."""


def show_doctor(folder: Path) -> bool:
    """Print what was found, for runs that will lie in `folder`; whether every stage can run."""
    findings = {
        "This machine": list(machine(folder)),
        "Packages": [installed(part) for part in PACKAGES],
        "Programs, all of them optional": [present(part) for part in PROGRAMS],
    }
    for title, rows in findings.items():
        output.print(_table(title, rows))
    missing = [row for row in findings["This machine"] + findings["Packages"] if not row.good]
    output.print(
        "Every stage can run." if not missing else f"{len(missing)} to mend: see the last column.", style="bold"
    )
    return not missing


def machine(folder: Path) -> Iterator[Finding]:
    """Python, processor, its matrix products, memory, disk and GPU."""
    given = ".".join(map(str, sys.version_info[:3]))
    yield _bounded("Python", given, sys.version_info >= _MIN_PYTHON, "KeyLM needs 3.11 or later")
    memory, disk = _memory(), shutil.disk_usage(folder).free
    yield Finding(
        "memory", f"{memory / _GIB:.1f} GiB", memory >= _MIN_MEMORY, "the quickstart needs 1 GiB, 75M about 4"
    )
    yield _bounded("free disk", f"{disk / _GIB:.1f} GiB", disk >= _MIN_DISK, "tokens take two bytes each: make room")
    if installed(PACKAGES[0]).good:
        yield from _computing()


def installed(part: Requirement) -> Finding:
    """Whether a Python package is installed, and which version."""
    try:
        return Finding(part.name, version(part.name), True)
    except PackageNotFoundError:
        return Finding(part.name, "missing", not part.needed, f"{part.install}  (for {part.stages})")


def present(part: Requirement) -> Finding:
    """Whether a program is on the path."""
    path = shutil.which(part.name)
    return Finding(part.name, path or "not installed", True, "" if path else f"{part.install}  (for {part.stages})")


def _bounded(subject: str, found: str, good: bool, advice: str) -> Finding:
    return Finding(subject, found, good, "" if good else advice)


def _computing() -> Iterator[Finding]:
    import torch

    from keylm.common.hardware import compute_dtype, describe_hardware
    from keylm.model.flops import matmul_flops_per_second
    from keylm.recipe.model import ModelConfig

    facts = describe_hardware()
    yield Finding("processor", f"{facts['processor']}, {facts['cores']} cores", True)
    dtype = compute_dtype("auto")
    rate = matmul_flops_per_second(ModelConfig(), 2048, dtype)
    yield Finding("matrix products", f"{rate / 1e9:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}", True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch sees"
    yield Finding("GPU", gpu, True)


def _memory() -> int:
    """Bytes that programs can still have (Linux), or all that there are."""
    info = Path("/proc/meminfo")
    if info.exists():
        line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _table(title: str, rows: list[Finding]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), show_header=False)
    for style in ("dim", "", "dim"):
        table.add_column(style=style, overflow="fold")
    for row in rows:
        mark = "" if row.good else "[red]✗[/] "
        table.add_row(row.subject, f"{mark}{row.found}", escape(row.advice))
    return table
