"""The English of the Python environment itself: real text for a first model, without any download.

Docstrings of the standard library and of every installed package, Python's help topics, package descriptions, and
the documentation files that packages bring along. Sources are scanned as text and never imported. The text belongs to
the packages and is under their licences.
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
from keylm.data.sources.progress import ReadProgress

_LEFT_OUT = {
    "keylm": "a model does not read its own source",
    "lm_eval": "its tasks are what the model is examined on",
    "site-packages": "walked on its own",
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
"""A comment or a string of Python; whatever looks like one inside another is passed over with it."""

_PART_CHARACTERS = 4096
_PARAGRAPHS = re.compile(r"\n\s*\n")
_LEAST_LETTERS = 0.75
"""Least share of a paragraph's characters, white space apart, that are ASCII letters. Code and tables have less."""
_NOT_LETTERS = (string.punctuation + string.digits).encode()


def read_installed_docs(reading: ReadProgress) -> Iterator[Document]:
    """The text of modules, help topics, package descriptions and documentation files; no paragraph comes twice.

    What is longer than `_PART_CHARACTERS` is cut into several documents, at the end of a paragraph. The order is that
    of a hash of the files' names: any prefix is a fair sample of all packages, and the same environment gives the same
    documents wherever it is installed.
    """
    files = sorted(_files(), key=lambda file: _hash(file[0]))
    reading.total = len(files)
    seen: set[int] = set()
    for name, path in files:
        reading.done += 1
        for pieces in _documents_in(name, path):
            paragraphs = (paragraph for piece in pieces for paragraph in english(piece) if _is_new(paragraph, seen))
            yield from (Document(text=part) for part in _parts(paragraphs))


def docstrings(source: str) -> Iterator[str]:
    """The triple-quoted docstrings of Python source, cleaned of their indentation, in order.

    A scan for strings that follow a colon, or that begin the file. `ast` finds the same ones in seven times the time.
    """
    is_expected, end = True, 0
    for token in _TOKEN.finditer(source):
        code = source[end : token.start()].rstrip(" \t\r\n\frRuU")
        is_expected = code.endswith(":") if code else is_expected
        end = token.end()
        if token["body"] is not None and is_expected:
            yield inspect.cleandoc(token["body"])
        is_expected = is_expected and source[token.start()] == "#"


def english(text: str) -> list[str]:
    """The paragraphs of `text` that are mostly words, without interpreter sessions, tables and code."""
    return [paragraph for paragraph in _PARAGRAPHS.split(text) if paragraph.strip() and _is_english(paragraph)]


def _is_english(paragraph: str) -> bool:
    characters = "".join(paragraph.split())
    letters = characters.encode("ascii", errors="ignore").translate(None, delete=_NOT_LETTERS)
    return ">>>" not in characters and len(letters) >= _LEAST_LETTERS * max(len(characters), 1)


def _files() -> Iterator[tuple[str, Path]]:
    """Files worth reading, each with its name within the environment."""
    paths = sysconfig.get_paths()
    for root in sorted({Path(paths[place]) for place in ("stdlib", "purelib", "platlib")}):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT]
            place = Path(folder).relative_to(root)
            for name in names:
                if _is_worth_reading(place, name):
                    yield (place / name).as_posix(), Path(folder, name)


def _is_worth_reading(place: Path, name: str) -> bool:
    if place.suffix == ".dist-info":
        return name == "METADATA"
    return name.endswith((".py", *_DOCUMENTATION))


def _documents_in(name: str, path: Path) -> Iterator[list[str]]:
    """The documents of a file, each a list of pieces; none where it cannot be read as UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if name == "pydoc_data/topics.py":
        from pydoc_data.topics import topics

        yield from ([topic] for topic in topics.values())
    elif name.endswith(".py"):
        yield list(docstrings(text))
    elif name.endswith("METADATA"):
        yield [str(message_from_string(text).get_payload())]
    else:
        yield [text]


def _parts(paragraphs: Iterable[str]) -> Iterator[str]:
    """The paragraphs, joined to texts that end once they have `_PART_CHARACTERS`."""
    part: list[str] = []
    for paragraph in paragraphs:
        part.append(paragraph)
        if sum(map(len, part)) >= _PART_CHARACTERS:
            yield "\n\n".join(part)
            part = []
    if part:
        yield "\n\n".join(part)


def _is_new(paragraph: str, seen: set[int]) -> bool:
    digest = _hash(" ".join(paragraph.split()))
    is_new = digest not in seen
    seen.add(digest)
    return is_new


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
