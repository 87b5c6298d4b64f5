"""`installed-docs`: the English of the Python environment itself, for a first model without any download.

Docstrings of the standard library and of every installed package, Python's help topics, package descriptions, and
documentation files that packages contain. Source files are scanned as text and never imported. The text belongs to the
packages and is under their licenses.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import string
import sysconfig
from collections.abc import Iterable, Iterator
from email import message_from_string
from pathlib import Path

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.progress import ReadProgress
from keylm.recipe.sources import InstalledDocsConfig

_EXCLUDED_FOLDERS = {
    "keylm": "a model does not read its own source",
    "lm_eval": "the model is evaluated on its tasks",
    "site-packages": "walked separately",
    "test": "test code explains little",
    "tests": "test code explains little",
}
"""Folders that are not walked, and why."""

_DOCUMENTATION = (".md", ".rst", ".txt")

_TOKEN = re.compile(
    r"""\#[^\n]*"""
    r"""|(?P<quotes>\"{3}|'{3})(?P<body>(?:[^\\]|\\.)*?)(?P=quotes)"""
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""",
    re.DOTALL,
)
"""A comment or a string in Python. The regex consumes it whole, so nothing inside it is taken for another one."""

_DOCUMENT_CHARACTERS = 4096
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_MIN_LETTERS = 0.75
"""Minimum fraction of a paragraph's characters, without white space, that are ASCII letters. Code and tables have
less."""
_NOT_LETTERS = (string.punctuation + string.digits).encode()


def read_installed_docs(progress: ReadProgress) -> Iterator[Document]:
    """The text of modules, help topics, package descriptions and documentation files, each paragraph once.

    Text longer than `_DOCUMENT_CHARACTERS` is split into several documents, at the end of a paragraph. Files come in
    the order of a hash of their names: any prefix is a fair sample of all packages, and the same environment gives the
    same documents wherever it is installed.
    """
    files = sorted(_find_files(), key=lambda file: _hash(file[0]))
    progress.total = len(files)
    # With copies, held-out text was so repetitive that `xz` coded it in fewer bits than the model (docs/log.md).
    seen_paragraphs: set[int] = set()

    def new_paragraphs(text: str) -> Iterator[str]:
        for paragraph in english_paragraphs(text):
            # Many docstrings are inherited or generated, with other white space.
            digest = _hash(" ".join(paragraph.split()))
            if digest not in seen_paragraphs:
                seen_paragraphs.add(digest)
                yield paragraph

    for name, path in files:
        progress.done += 1
        for texts in _texts_of_file(name, path):
            paragraphs = (paragraph for text in texts for paragraph in new_paragraphs(text))
            yield from (Document(text=text) for text in _join_paragraphs(paragraphs))


def extract_docstrings(source: str) -> Iterator[str]:
    """The triple-quoted docstrings of Python source, without their indentation, in order.

    Scans for strings that follow a colon or begin the file. `ast` finds the same ones in seven times the time.
    """
    is_expected, end = True, 0
    for token in _TOKEN.finditer(source):
        code = source[end : token.start()].rstrip(" \t\r\n\frRuU")
        is_expected = code.endswith(":") if code else is_expected
        end = token.end()
        if token["body"] is not None and is_expected:
            yield inspect.cleandoc(token["body"])
        # A comment between the colon and the docstring changes nothing; any other string does.
        is_expected = is_expected and source[token.start()] == "#"


def english_paragraphs(text: str) -> list[str]:
    """The paragraphs of `text` that are mostly words, without interpreter sessions, tables and code."""

    def is_english(paragraph: str) -> bool:
        characters = "".join(paragraph.split())
        letters = characters.encode("ascii", errors="ignore").translate(None, delete=_NOT_LETTERS)
        return ">>>" not in characters and len(letters) >= _MIN_LETTERS * max(len(characters), 1)

    return [paragraph for paragraph in _PARAGRAPH_BREAK.split(text) if paragraph.strip() and is_english(paragraph)]


def _find_files() -> Iterator[tuple[str, Path]]:
    """Files that contain prose, each with its name relative to the environment."""
    paths = sysconfig.get_paths()
    for root in sorted({Path(paths[key]) for key in ("stdlib", "purelib", "platlib")}):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in _EXCLUDED_FOLDERS]
            relative = Path(folder).relative_to(root)
            # Of a package's metadata only the description is prose; the rest are lists of files and licenses.
            is_metadata = relative.suffix == ".dist-info"
            for name in names:
                if name == "METADATA" if is_metadata else name.endswith((".py", *_DOCUMENTATION)):
                    yield (relative / name).as_posix(), Path(folder, name)


def _texts_of_file(name: str, path: Path) -> Iterator[list[str]]:
    """The documents of a file, each a list of texts; none if the file cannot be read as UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if name == "pydoc_data/topics.py":
        # The only module that is imported: its text is in a dictionary, not in docstrings.
        from pydoc_data.topics import topics

        yield from ([topic] for topic in topics.values())
    elif name.endswith(".py"):
        yield list(extract_docstrings(text))
    elif name.endswith("METADATA"):
        yield [str(message_from_string(text).get_payload())]
    else:
        yield [text]


def _join_paragraphs(paragraphs: Iterable[str]) -> Iterator[str]:
    """Paragraphs joined to texts that end once they have `_DOCUMENT_CHARACTERS`."""
    joined: list[str] = []
    for paragraph in paragraphs:
        joined.append(paragraph)
        if sum(map(len, joined)) >= _DOCUMENT_CHARACTERS:
            yield "\n\n".join(joined)
            joined = []
    if joined:
        yield "\n\n".join(joined)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


class InstalledDocsSource(SourceType[InstalledDocsConfig]):
    """The Python environment."""

    def read_documents(self, source: InstalledDocsConfig, request: ReadRequest) -> Iterator[Document]:  # noqa: ARG002
        """See `read_installed_docs`."""
        return read_installed_docs(request.progress)

    def availability(self, source: InstalledDocsConfig) -> str:  # noqa: ARG002
        """Always `installed`."""
        return "installed"
