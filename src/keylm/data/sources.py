"""Where documents come from: one reader per kind of source, all with the same face."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import assert_never

from keylm.data import drills, files, hub, installed_docs, instructions
from keylm.data.documents import Document
from keylm.data.reading import Reading
from keylm.recipe import Drills, Files, Hub, InstalledDocs, Instructions, Source


def read(source: Source, seed: int, reading: Reading | None = None) -> Iterator[Document]:
    """The documents of a source, always in the same order, at most `source.max_documents` of them.

    `reading` is kept up to date while the documents are taken.

    Raises:
        UserError: the source is missing, forbidden, or holds what is not a document.
    """
    reading = reading or Reading()
    documents = _read_all(source, seed, reading)
    if source.max_documents is None:
        yield from documents
        return
    for number, document in enumerate(islice(documents, source.max_documents), start=1):
        reading.done, reading.total = number, source.max_documents
        yield document


def _read_all(source: Source, seed: int, reading: Reading) -> Iterator[Document]:
    match source:
        case Files():
            return files.read(source, reading)
        case Hub():
            return hub.read(source, reading)
        case InstalledDocs():
            return installed_docs.read(reading)
        case Instructions():
            talks = instructions.generate(source.num_documents, seed)
            return _counted((Document(messages=tuple(talk)) for talk in talks), source.num_documents, reading)
        case Drills():
            texts = drills.generate(source.num_documents, seed)
            return _counted((Document(text=text) for text in texts), source.num_documents, reading)
        case _:
            assert_never(source)


def _counted(documents: Iterator[Document], total: int, reading: Reading) -> Iterator[Document]:
    """Generated documents, of which it is known how many there will be."""
    reading.total = total
    for document in documents:
        reading.done += 1
        yield document
