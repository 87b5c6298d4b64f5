"""Where documents come from: one reader per kind of source, all with the same face."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import assert_never

from keylm.data import drills, files, hub, installed_docs, instructions, typos
from keylm.data.documents import Document
from keylm.data.instructions import verified
from keylm.data.reading import WHOLE, Part, Reading
from keylm.data.siblings import Siblings, in_turn
from keylm.errors import KeyLMError, MissingSourceError
from keylm.recipe import Drills, Files, Hub, InstalledDocs, Instructions, Source, Typos, Verified

ALONE = Siblings()
"""What a source that is made of no others needs to know of them."""


def read(
    source: Source, seed: int, reading: Reading | None = None, *, part: Part = WHOLE, siblings: Siblings = ALONE
) -> Iterator[Document]:
    """The documents of a source, always in the same order, at most `source.max_documents` of them.

    `reading` is kept up to date while the documents are taken. Of files and of data sets on the hub a `part` can be
    read, with its share of `max_documents`. Drills and typos are made of what is trained on of their `siblings`.

    Raises:
        MissingSourceError: the source cannot be had at all.
        UserError: it holds what is not a document.
        KeyLMError: it cannot be had to its end.
    """
    reading = reading or Reading()
    documents = _whole_or_nothing(_read_all(source, seed, reading, part, siblings))
    if source.max_documents is None:
        yield from documents
        return
    limit = -(-source.max_documents // part.count)
    for number, document in enumerate(islice(documents, limit), start=1):
        reading.done, reading.total = number, limit
        yield document


def read_if_there(source: Source, seed: int, reading: Reading | None = None) -> Iterator[Document]:
    """What `read` gives, or nothing where the recipe lets the source be missing, and it is.

    Raises:
        MissingSourceError, UserError, KeyLMError: as for `read`.
    """
    try:
        yield from read(source, seed, reading)
    except MissingSourceError:
        if source.missing == "stop":
            raise


def _whole_or_nothing(documents: Iterator[Document]) -> Iterator[Document]:
    """A source that breaks off is not a missing one: going on without its rest would be another data set."""
    has_begun = False
    try:
        for document in documents:
            has_begun = True
            yield document
    except MissingSourceError as error:
        if has_begun:
            raise KeyLMError(f"{error}; what was read before is kept, run again") from error
        raise


def _read_all(source: Source, seed: int, reading: Reading, part: Part, siblings: Siblings) -> Iterator[Document]:
    match source:
        case Files():
            return files.read(source, reading, part=part)
        case Hub():
            return hub.read(source, reading, part=part)
        case InstalledDocs():
            return installed_docs.read(reading)
        case Instructions():
            talks = instructions.generate(source.num_documents, seed, instructions.KIND_SETS[source.kinds])
            return _counted((Document(messages=tuple(talk)) for talk in talks), source.num_documents, reading)
        case Drills():
            words = drills.words_of(in_turn(_bases(source, seed, siblings)))
            texts = drills.generate(source.num_documents, seed, words)
            return _counted((Document(text=text) for text in texts), source.num_documents, reading)
        case Typos():
            made = typos.generate(in_turn(_bases(source, seed, siblings)), source, seed)
            return _counted(made, source.num_documents, reading)
        case Verified():
            return verified.read(read(source.of, seed, reading), seed)
        case _:
            assert_never(source)


def _bases(source: Drills | Typos, seed: int, siblings: Siblings) -> list[Iterator[Document]]:
    """What is trained on of each of the sources that `source` is made of."""
    return [siblings.trained_on(base, read_if_there(base, seed)) for base in map(siblings.named, source.of)]


def _counted(documents: Iterator[Document], total: int, reading: Reading) -> Iterator[Document]:
    """Generated documents, of which it is known how many there will be."""
    reading.total = total
    for document in documents:
        reading.done += 1
        yield document
