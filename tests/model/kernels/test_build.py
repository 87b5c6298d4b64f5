"""The cache of the compiled kernels, with a compiler that copies a library instead of making one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keylm.model.kernels import build

LIBRARY = next(Path(np.__file__).parent.rglob("_multiarray_umath*.so"))
COMPILER = """#!/bin/sh
echo "$@" >> "{log}"
for output; do :; done
cp "{library}" "$output"
"""


class FakeCompiler:
    """Counts how often the kernels are compiled."""

    def __init__(self, folder: Path) -> None:
        self.path, self.log = folder / "compiler", folder / "log"
        self.path.write_text(COMPILER.format(log=self.log, library=LIBRARY))
        self.path.chmod(0o755)
        self.log.touch()

    @property
    def num_compiled(self) -> int:
        return sum("-shared" in line for line in self.log.read_text().splitlines())


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    fake = FakeCompiler(tmp_path)
    monkeypatch.setenv("CXX", str(fake.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return fake


def load() -> object:
    """What a new process would load."""
    return build.kernel_library.__wrapped__()


def test_what_is_compiled_is_compiled_once(compiler: FakeCompiler) -> None:
    assert load()
    assert load()
    assert compiler.num_compiled == 1


@pytest.mark.parametrize("size", [0, 1000, -1], ids=["empty", "cut", "one byte short"])
def test_a_damaged_library_is_compiled_again(compiler: FakeCompiler, tmp_path: Path, size: int) -> None:
    load()
    [path] = (tmp_path / "keylm").glob("*.so")
    data = path.read_bytes()
    path.unlink()  # another file: this process has the old one mapped
    path.write_bytes(data[:size])
    assert load()
    assert compiler.num_compiled == 2
    assert [other.read_bytes() for other in (tmp_path / "keylm").glob("*.so")] == [data]


def test_other_instruction_sets_have_a_library_of_their_own(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setattr(build, "instruction_sets", lambda: ["avx2"])
    load()
    assert compiler.num_compiled == 2


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_do_without(compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(build.platform, "system", lambda: system)
    assert load() is None
    assert compiler.num_compiled == 0


def test_another_library_of_torch_has_no_products(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build.torch, "__file__", str(tmp_path / "__init__.py"))
    assert build.torch_products.__wrapped__() is None


def test_the_instruction_sets_are_those_of_this_processor() -> None:
    flags = build.instruction_sets()
    assert flags == sorted(flags)
    assert not Path("/proc/cpuinfo").exists() or {"sse2", "avx2"} & set(flags) or "asimd" in flags
