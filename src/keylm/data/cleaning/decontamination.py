"""Test items kept out of the training text: no document may share `NUM_WORDS` words in a row with one.

The words are datatrove's (lower case, numbers as `0`, no punctuation, no accents), the index is in its format, and its
`NGramsDecontFilter` has the last word. It reads more slowly than text is encoded, so a screen comes before it, which
lets nothing pass that the filter would drop:

* The letters of a text are the runs of `a` to `z` in what datatrove makes of it, with one space between them. They can
  be had more cheaply: letters stay, accents fall, everything else parts two runs.
* Who shares an n-gram shares its letters, from the beginning of a run on. The first 48 letters of every n-gram are in a
  hash table (the first 32, or 24, of those that have no more), and every run of a document is looked up there, all of
  them at once.

Folder of an index:

    TASK.index.hashes    uint64, hashes of the n-grams of one lm_eval task, as datatrove's indexer writes them
    screen.npy           uint64, sorted hashes of the beginnings of the letters of all n-grams
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from keylm.common.errors import UserError
from keylm.common.files import replace_folder
from keylm.run import Run

if TYPE_CHECKING:
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter

    from keylm.data.cleaning.benchmarks import ScoredItem

NUM_WORDS = 12
"""Words per n-gram: datatrove's default, and nearly that of Brown et al. 2020 (13)."""

_LENGTHS = (24, 32, 48)
"""An n-gram with fewer letters than the first is not indexed: rows of numbers would drop every table."""
_MULTIPLIER = 0x9E3779B97F4A7C15
_WEIGHTS = np.array(
    [
        [pow(_MULTIPLIER, place, 1 << 64) if 8 * place <= length else 0 for length in _LENGTHS]
        for place in range(1, _LENGTHS[-1] // 8 + 1)
    ],
    dtype=np.uint64,
)
"""What 8 letters, as one number, are multiplied by at each place to hash the first 24, 32 and 48 of them: (6, 3)."""
_SLOTS_PER_HASH = 8
"""Size of a table: it takes one in eight other hashes for likely, and two tables one in sixty-four, or fewer."""
_SPACE = ord(" ")
_LOWER = bytes(byte | 0x20 if chr(byte).isalpha() else _SPACE for byte in range(128)) + b" " * 128
"""ASCII letters in lower case, a space for every other byte."""
_FOLDING = "keylm-fold"
_SCREEN = "screen.npy"


class Decontaminator:
    """An index, open to be asked about documents."""

    def __init__(self, folder: Path) -> None:
        self._screen = _Hashes(np.load(folder / _SCREEN))
        self._filter = _filter(folder)

    def task(self, text: str) -> str | None:
        """An lm_eval task with which the text shares `NUM_WORDS` words in a row; `None` if there is none."""
        if not self.is_suspect(text):
            return None
        from datatrove.data import Document

        document = Document(text=text, id="")
        return None if self._filter.filter(document) is True else document.metadata["contaminated_task"]

    def is_suspect(self, text: str) -> bool:
        """Whether the filter has to be asked: always where it would find something, and hardly ever else."""
        letters = _letters(text)
        starts = np.flatnonzero(np.frombuffer(b" " + letters, dtype=np.uint8) == _SPACE)
        return self._screen.has_any(_hash(_beginnings(letters, starts)).ravel())


class _Hashes:
    """A set of uint64, asked for many at once: two tables, of their first bits and of the next, turn most away."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
        bits = (len(hashes) * _SLOTS_PER_HASH).bit_length()
        self._bits, self._shift = np.uint64(bits), np.uint64(64 - bits)
        self._tables = [np.zeros(1 << bits, dtype=np.bool_) for _ in range(2)]
        for table, places in zip(self._tables, (self._places(hashes), self._places(hashes << self._bits)), strict=True):
            table[places] = True

    def has_any(self, hashes: np.ndarray) -> bool:
        """Whether one of these, (n,) uint64, is in the set."""
        first, second = self._tables
        likely = hashes[first.take(self._places(hashes))]
        likely = likely[second.take(self._places(likely << self._bits))]
        if not len(likely):
            return False
        found = np.searchsorted(self._hashes, likely)
        return bool(np.any(self._hashes.take(found, mode="clip") == likely))

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> self._shift).view(np.int64)


def load_decontaminator(run: Run) -> Decontaminator | None:
    """The index of the tasks that `data.clean.decontaminate` names, built if it is not there yet; `None` for no tasks.

    Raises:
        UserError: a task is unknown, or its data are not there.
    """
    names = run.recipe.data.clean.decontaminate
    if not names:
        return None
    folder = run.stage("prepare") / "contamination"
    if not folder.exists():
        from keylm.data.cleaning.benchmarks import scored_items

        data = run.recipe.eval.data
        build_decontaminator(scored_items(names, Path(data) if data else None), folder)
    return _open(folder.resolve())


@cache
def _open(folder: Path) -> Decontaminator:
    return Decontaminator(folder)


def build_decontaminator(items: Iterable[ScoredItem], folder: Path) -> None:
    """Write the index of test items to a new folder, which appears when it is whole.

    Raises:
        UserError: all items of a task together have no n-gram to look for.
    """
    ngrams: dict[str, set[str]] = {}
    for item in items:
        ngrams.setdefault(item.task, set()).update(_ngrams(item))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as place:
        _write(ngrams, Path(place) / folder.name)
        replace_folder(Path(place) / folder.name, folder)


def _ngrams(item: ScoredItem) -> set[str]:
    """Every `NUM_WORDS` words in a row of a context followed by one of its continuations."""
    contexts = [_words(context) for context in item.contexts]
    answers = [_words(continuation) for continuation in item.continuations]
    rows = contexts + [context[-NUM_WORDS + 1 :] + answer for context in contexts for answer in answers]
    return {" ".join(row[i : i + NUM_WORDS]) for row in rows for i in range(len(row) - NUM_WORDS + 1)}


def _words(text: str) -> list[str]:
    from datatrove.utils.text import simplify_text

    from keylm.data.cleaning.datatrove_adapters import ENGLISH

    return ENGLISH.word_tokenize(simplify_text(text))


def _write(ngrams: dict[str, set[str]], folder: Path) -> None:
    from datatrove.utils.hashing import create_hash_func

    from keylm.data.cleaning.datatrove_adapters import HASHES

    digest = create_hash_func(HASHES)
    folder.mkdir()
    hashes: list[np.ndarray] = []
    for task, found in ngrams.items():
        letters = {ngram: _letters(ngram) for ngram in sorted(found)}
        indexed = {ngram: row for ngram, row in letters.items() if len(row) >= _LENGTHS[0]}
        if not indexed:
            raise UserError(
                f"task `{task}` has no {NUM_WORDS} words in a row to look for: leave it out of data.clean.decontaminate"
            )
        np.fromiter(map(digest, indexed), dtype=np.uint64, count=len(indexed)).tofile(folder / f"{task}.index.hashes")
        hashes.append(_hash_longest(list(indexed.values())))
    np.save(folder / _SCREEN, np.unique(np.concatenate(hashes)))


def _hash_longest(rows: list[bytes]) -> np.ndarray:
    """The hash of each row's beginning, of the greatest of `_LENGTHS` that it has: (n,) uint64."""
    padded = b"".join(row[: _LENGTHS[-1]].ljust(_LENGTHS[-1]) for row in rows)
    hashes = _hash(_beginnings(padded, np.arange(len(rows)) * _LENGTHS[-1]))
    longest = np.searchsorted(_LENGTHS, [len(row) for row in rows], side="right") - 1
    return np.asarray(hashes[np.arange(len(rows)), longest])


def _letters(text: str) -> bytes:
    """The runs of `a` to `z` in what datatrove's `simplify_text` makes of the text, one space behind each."""
    data = np.frombuffer(text.encode("ascii", _FOLDING).translate(_LOWER), dtype=np.uint8)
    kept = data != _SPACE
    kept[1:] |= kept[:-1].copy()
    return bytes(data[kept])


def _fold(error: UnicodeError) -> tuple[str, int]:
    """Letters for a run of characters that are not ASCII: what `text.encode` calls for each."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_fold_character, error.object[error.start : error.end])), error.end


@lru_cache(maxsize=1 << 16)
def _fold_character(character: str) -> str:
    """`e` for `é`, nothing for an accent alone, spaces for what is no Latin letter."""
    parts = unicodedata.normalize("NFD", character.lower())
    return "".join(part if part.isascii() else " " for part in parts if unicodedata.category(part) != "Mn")


codecs.register_error(_FOLDING, _fold)


def _beginnings(letters: bytes, starts: np.ndarray) -> np.ndarray:
    """The 48 letters from each of `starts` on, spaces behind the last, as numbers of 8 letters: (n, 6) uint64."""
    padded = letters + b" " * _LENGTHS[-1]
    windows = np.ndarray(len(letters) + 1, dtype=f"V{_LENGTHS[-1]}", buffer=padded, strides=(1,))
    return np.asarray(windows[starts].view("<u8").reshape(-1, len(_WEIGHTS)))


def _hash(beginnings: np.ndarray) -> np.ndarray:
    """Hashes of the first 24, 32 and 48 letters of every row: (n, 3) uint64."""
    return np.asarray(beginnings @ _WEIGHTS)


def _filter(folder: Path) -> NGramsDecontFilter:
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from loguru import logger

    from keylm.data.cleaning.datatrove_adapters import ENGLISH, HASHES

    logger.disable("datatrove")
    config = NGramsDecontConfig(n_grams=NUM_WORDS, hash_config=HASHES)
    return NGramsDecontFilter(str(folder), config, language=ENGLISH)
