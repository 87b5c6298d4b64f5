"""The release as a page: a static folder that runs the model on the visitor's own machine, by llama.cpp in WebAssembly.

The page is the one of `keylm serve`; in the place of the server is wllama (https://github.com/ngxson/wllama). Its
version 2 is taken: version 3 reads prompts only as text, in which control strings count, and needs browsers that have
64-bit WebAssembly memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from keylm.common.console import console
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import replace_folder
from keylm.gguf.file import read_gguf_header
from keylm.gguf.locate import find_gguf
from keylm.run import Run
from keylm.serve import openai

PACKAGE = "@wllama/wllama"
VERSION = "2.3.7"

_INSTALL = ("install", "--ignore-scripts", "--no-audit", "--no-fund")

_PAGE = {"index.html": "index.html", "chat.js": "chat.js", "browser.js": "model.js"}
"""Files of the page, and what they are called in the folder."""

_WLLAMA = {
    "LICENCE": ("LICENCE", "5866e3bd7e3cbd3f7c8bea6efd8a1e7fa7cc8de68c30f428aff7c6584a0fb720"),
    "esm/index.min.js": ("index.js", "29e4320f49c2d7a5b55233146d80f32a0b92443d8594fa88f06efa72f18238fa"),
    "esm/single-thread/wllama.wasm": (
        "wllama.wasm",
        "529c780d43cb57cb9ac7ef4c42e16463afb0b2dec4ecaae9a6df8179c435fd71",
    ),
}
"""Files of the package, what they are called in the folder's `wllama/`, and their SHA-256."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
)


def write_static_page(run: Run, package: Path | None = None) -> Path:
    """Write the page of a run's export into `export/web`, with the GGUF that is best to run, and return that folder.

    `package` is the folder of an installed wllama; without it, npm fetches the package from its registry.

    Raises:
        UserError: there is no GGUF or no npm, or the package is not the one that this was made for.
        KeyLMError: npm cannot fetch it.
    """
    gguf = find_gguf(run.stage("export"))
    folder = run.stage("export") / "web"
    partial = folder.with_name("web.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "wllama").mkdir(parents=True)
    with _installed(package) as source:
        _vendor(source, partial / "wllama")
    _write_page(partial)
    shutil.copyfile(gguf, partial / gguf.name)
    version = _digest(partial)
    _write_model(gguf, version, partial / "model.json")
    _write_worker(version, gguf.name, partial)
    replace_folder(partial, folder)
    console.print(f"[green]✓[/] {'web':<10} {folder}")
    console.print(f"python -m http.server --bind 127.0.0.1 --directory {folder}", style="dim", soft_wrap=True)
    return folder


@contextmanager
def _installed(package: Path | None) -> Iterator[Path]:
    """The folder of the package: the one that is given, or one from npm for as long as the block runs."""
    if package:
        yield package
        return
    with tempfile.TemporaryDirectory() as folder:
        _fetch(Path(folder))
        yield Path(folder) / "node_modules" / PACKAGE


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if not npm:
        raise UserError(
            f"--web needs npm, which comes with Node.js, or with --wllama the folder of an unpacked {PACKAGE} {VERSION}"
        )
    console.print(f"fetching {PACKAGE} {VERSION} (4 MB) with npm", style="dim", markup=False)
    command = [npm, *_INSTALL, "--prefix", str(folder), f"{PACKAGE}@{VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("npm error")), "npm failed")
        raise KeyLMError(
            f"npm cannot fetch {PACKAGE}@{VERSION} ({reason}): try again, or unpack it and name it with --wllama"
        )


def _vendor(package: Path, folder: Path) -> None:
    """Copy the files that are needed, if they are the very ones that are known."""
    for source, (name, digest) in _WLLAMA.items():
        path = package / source
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"{package} is not the folder of {PACKAGE} {VERSION}: its {source} is missing or another")
        shutil.copyfile(path, folder / name)


def _write_page(folder: Path) -> None:
    page = resources.files("keylm.serve") / "page"
    for source, name in _PAGE.items():
        (folder / name).write_text((page / source).read_text(encoding="utf-8"), encoding="utf-8")
    # Whoever puts the folder somewhere need not set headers: the page brings its policy along.
    index, head = folder / "index.html", '<meta charset="utf-8">\n'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    index.write_text(index.read_text(encoding="utf-8").replace(head, head + policy, 1), encoding="utf-8")


def _write_model(gguf: Path, version: str, path: Path) -> None:
    size = gguf.stat().st_size
    facts = {**openai.model(read_gguf_header(gguf), 0), "file": gguf.name, "bytes": size, "version": version}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_worker(version: str, weights: str, folder: Path) -> None:
    """Write the service worker, told of every file but the weights, which the page keeps by itself."""
    files = ["./", *(name for name in _names(folder) if name not in ("index.html", weights))]
    known = f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(files)};\n"
    source = resources.files("keylm.serve").joinpath("page", "worker.js").read_text(encoding="utf-8")
    (folder / "worker.js").write_text(known + source, encoding="utf-8")


def _digest(folder: Path) -> str:
    """Sixteen hex digits that stand for the names and contents of all files in a folder."""
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _names(folder)]
    return hashlib.sha256(json.dumps([_names(folder), digests]).encode()).hexdigest()[:16]


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
