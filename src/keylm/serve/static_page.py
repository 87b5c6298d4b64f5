"""The chat page as a static folder, which runs the model in the visitor's browser with llama.cpp in WebAssembly.

The page is the one of `keylm serve`; wllama (https://github.com/ngxson/wllama) takes the place of the server. It is
version 2 on purpose: version 3 takes prompts only as text, in which control strings count, and needs browsers with
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
from keylm.gguf.header import read_gguf_header
from keylm.gguf.locate import find_gguf
from keylm.run import Run
from keylm.serve.schema import model_body

PACKAGE = "@wllama/wllama"
VERSION = "2.3.7"

_PAGE = {"index.html": "index.html", "chat.js": "chat.js", "browser.js": "model.js"}
"""Files of the page, with their names in the static folder."""

_WLLAMA = {
    "LICENCE": ("LICENCE", "5866e3bd7e3cbd3f7c8bea6efd8a1e7fa7cc8de68c30f428aff7c6584a0fb720"),
    "esm/index.min.js": ("index.js", "29e4320f49c2d7a5b55233146d80f32a0b92443d8594fa88f06efa72f18238fa"),
    "esm/single-thread/wllama.wasm": (
        "wllama.wasm",
        "529c780d43cb57cb9ac7ef4c42e16463afb0b2dec4ecaae9a6df8179c435fd71",
    ),
}
"""Files of the npm package, with their names in the static folder's `wllama/` and their SHA-256."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
)


def write_static_page(run: Run, package: Path | None = None) -> Path:
    """Write `export/web` of a run: the chat page, wllama, and the run's best GGUF to chat with.

    Args:
        run: An exported run.
        package: Folder of an installed wllama. None lets npm fetch it from its registry.

    Returns:
        The folder. Any static file server can serve it.

    Raises:
        UserError: There is no GGUF or no npm, the package is not the pinned version, or another
            command is at work in the run.
        KeyLMError: npm cannot fetch the package.
    """
    folder = run.stage("export") / "web"
    with run.lock():
        _write_folder(find_gguf(run.stage("export")), package, folder)
    console.print(f"[green]✓[/] {'web':<10} {folder}")
    console.print(f"python -m http.server --bind 127.0.0.1 --directory {folder}", style="dim", soft_wrap=True)
    return folder


def _write_folder(gguf: Path, package: Path | None, folder: Path) -> None:
    """Write the page with a GGUF to a folder, in place of what was there."""
    partial = folder.with_name("web.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "wllama").mkdir(parents=True)
    with _wllama_package(package) as source:
        _copy_wllama(source, partial / "wllama")
    _write_page(partial)
    shutil.copyfile(gguf, partial / gguf.name)

    # The version stands for all files so far: a browser that has kept another one loads everything again.
    version = _hash_files(partial)
    model = {
        **model_body(read_gguf_header(gguf), 0),
        "file": gguf.name,
        "bytes": gguf.stat().st_size,
        "version": version,
    }
    (partial / "model.json").write_text(json.dumps(model, indent=2) + "\n", encoding="utf-8")

    # The service worker keeps every file but the weights, which the page keeps by itself to show its progress.
    files = ["./", *(name for name in _file_names(partial) if name not in ("index.html", gguf.name))]
    constants = f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(files)};\n"
    worker = resources.files("keylm.serve").joinpath("page", "worker.js").read_text(encoding="utf-8")
    (partial / "worker.js").write_text(constants + worker, encoding="utf-8")

    replace_folder(partial, folder)


@contextmanager
def _wllama_package(package: Path | None) -> Iterator[Path]:
    """Yield the folder of the npm package: the given one, or one that npm fetches for as long as the block runs."""
    if package:
        yield package
        return
    npm = shutil.which("npm")
    if not npm:
        raise UserError(
            f"--web needs npm, which comes with Node.js, or with --wllama the folder of an unpacked {PACKAGE} {VERSION}"
        )
    console.print(f"fetching {PACKAGE} {VERSION} (4 MB) with npm", style="dim", markup=False)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder]
        command = [npm, "install", *options, f"{PACKAGE}@{VERSION}"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            errors = (line for line in process.stderr.splitlines() if line.startswith("npm error"))
            raise KeyLMError(
                f"npm cannot fetch {PACKAGE}@{VERSION} ({next(errors, 'npm failed')}): "
                "try again, or unpack it and name it with --wllama"
            )
        yield Path(folder) / "node_modules" / PACKAGE


def _copy_wllama(package: Path, folder: Path) -> None:
    """Copy the files that the page needs, if their hashes are the pinned ones."""
    for source, (name, sha256) in _WLLAMA.items():
        path = package / source
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise UserError(f"{package} is not the folder of {PACKAGE} {VERSION}: its {source} is missing or another")
        shutil.copyfile(path, folder / name)


def _write_page(folder: Path) -> None:
    page = resources.files("keylm.serve") / "page"
    for source, name in _PAGE.items():
        text = (page / source).read_text(encoding="utf-8")
        if name == "index.html":
            # A static host sends no policy of ours as a header, so the page carries it.
            head = '<meta charset="utf-8">\n'
            policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            text = text.replace(head, head + policy, 1)
        (folder / name).write_text(text, encoding="utf-8")


def _hash_files(folder: Path) -> str:
    """Return 16 hex digits that stand for the names and contents of all files in a folder."""
    names = _file_names(folder)
    hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256(json.dumps([names, hashes]).encode()).hexdigest()[:16]


def _file_names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
