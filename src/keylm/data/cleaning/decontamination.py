"""Decontamination: no document may share `NUM_WORDS` words in a row with an item of a benchmark.

Words are datatrove's (lower case, numbers as `0`, no punctuation, no accents), the index has its format, and its
`NGramsDecontFilter` decides. That filter takes as long as tokenization, so a screen comes before it, which passes on
every document that the filter would drop, and about one in a thousand of the others:

* The *letters* of a text are the runs of `a` to `z` in what datatrove makes of it, separated by spaces. They can be
  computed without datatrove: letters stay, accents are removed, and everything else ends a run.
* A text that contains an n-gram contains its letters, from the beginning of a run. So a hash of the first 48 letters of
  every n-gram is stored (of 32 or 24 if it has fewer), and is computed for every run of a document:

      item         Which of the 3 old machines did he use to cross the river?
      n-grams      which of the 0 old machines did he use to cross the, of the 0 old machines did ...
      letters      which of the old machines did he use to cross the
      stored       hash("which of the old machines did he use to cross th"), ...

      document     They asked: which of the 7 OLD machines did he use to cross the sea?
      letters      they asked which of the old machines did he use to cross the sea
      looked up    hash("they asked which of the old machines did he use ")
                   hash("asked which of the old machines did he use to cr")
                   hash("which of the old machines did he use to cross th") is stored: ask the filter

Folder of an index:

    TASK.index.hashes    uint64, hashes of the n-grams of one lm_eval task, as datatrove's indexer writes them
    screen.npy           uint64, sorted hashes of the first letters of all n-grams
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

    from keylm.data.cleaning.benchmark_items import ScoredItem

NUM_WORDS = 12
"""Words per n-gram: datatrove's default, and nearly that of Brown et al. 2020 (13)."""

_PREFIX_LENGTHS = (24, 32, 48)
"""An n-gram with fewer letters than the first is not indexed: a row of numbers would match every table."""
_MULTIPLIER = 0x9E3779B97F4A7C15
_WEIGHTS = np.array(
    [
        [pow(_MULTIPLIER, index, 1 << 64) if 8 * index <= length else 0 for length in _PREFIX_LENGTHS]
        for index in range(1, _PREFIX_LENGTHS[-1] // 8 + 1)
    ],
    dtype=np.uint64,
)
"""Weights of the hash, which is a dot product with the letters in groups of 8 as numbers: (6 groups, 3 lengths)."""
_SLOTS_PER_HASH = 8
"""Size of a table: one in eight other hashes passes it, and one in sixty-four both."""
_SPACE = ord(" ")
_LOWER = bytes(byte | 0x20 if chr(byte).isalpha() else _SPACE for byte in range(128)) + b" " * 128
"""ASCII letters in lower case, a space for every other byte."""
_FOLDING = "keylm-fold"
_SCREEN = "screen.npy"


class Decontaminator:
    """An open index.

    Args:
        folder: where `build_decontaminator` wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self._screen = _HashSet(np.load(folder / _SCREEN))
        self._filter = _make_filter(folder)

    def contaminating_task(self, text: str) -> str | None:
        """An lm_eval task with which the text shares `NUM_WORDS` words in a row, if there is one."""
        if not self.is_suspect(text):
            return None
        from datatrove.data import Document

        document = Document(text=text, id="")
        return None if self._filter.filter(document) is True else document.metadata["contaminated_task"]

    def is_suspect(self, text: str) -> bool:
        """The screen: True whenever the filter would find something, and rarely otherwise."""
        letters = _letters(text)
        starts = np.flatnonzero(np.frombuffer(b" " + letters, dtype=np.uint8) == _SPACE)
        return self._screen.has_any(_hash_prefixes(_prefixes(letters, starts)).ravel())


class _HashSet:
    """A set of uint64 for looking up many at once: two tables, indexed by different bits, reject most of them.

    One table of the same size took 1.3 to 1.6 times as long, and a Python set of datatrove's hashes 6 to 18 times.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
        bits = (len(hashes) * _SLOTS_PER_HASH).bit_length()
        self._bits, self._shift = np.uint64(bits), np.uint64(64 - bits)
        self._tables = [np.zeros(1 << bits, dtype=np.bool_) for _ in range(2)]
        for table, slots in zip(self._tables, (self._slots(hashes), self._slots(hashes << self._bits)), strict=True):
            table[slots] = True

    def has_any(self, hashes: np.ndarray) -> bool:
        """Whether one of these, (n,) uint64, is in the set."""
        first, second = self._tables
        candidates = hashes[first.take(self._slots(hashes))]
        candidates = candidates[second.take(self._slots(candidates << self._bits))]
        if not len(candidates):
            return False
        indices = np.searchsorted(self._hashes, candidates)
        return bool(np.any(self._hashes.take(indices, mode="clip") == candidates))

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> self._shift).view(np.int64)


def load_decontaminator(run: Run) -> Decontaminator | None:
    """The index of the tasks in `data.clean.decontaminate`, built if it does not exist yet; None without tasks.

    Raises:
        UserError: a task is unknown, or its data is not available.
    """
    names = run.recipe.data.clean.decontaminate
    if not names:
        return None
    folder = run.stage("prepare") / "contamination"
    if not folder.exists():
        from keylm.data.cleaning.benchmark_items import scored_items

        build_decontaminator(scored_items(names, run.recipe.eval.data_folder), folder)
    return _open_cached(folder.resolve())


@cache
def _open_cached(folder: Path) -> Decontaminator:
    return Decontaminator(folder)


def build_decontaminator(items: Iterable[ScoredItem], folder: Path) -> None:
    """Write the index of benchmark items to a new folder, which appears only when it is complete.

    Raises:
        UserError: a task has no n-gram to look for.
    """
    ngrams: dict[str, set[str]] = {}
    for item in items:
        ngrams.setdefault(item.task, set()).update(_ngrams(item))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as temporary:
        _write_index(ngrams, Path(temporary) / folder.name)
        replace_folder(Path(temporary) / folder.name, folder)


def _ngrams(item: ScoredItem) -> set[str]:
    """Every `NUM_WORDS` words in a row of a context, and of a context's end followed by a continuation."""
    contexts = [_words(context) for context in item.contexts]
    continuations = [_words(continuation) for continuation in item.continuations]
    # The context's end is needed for n-grams that begin in it and end in the continuation.
    rows = contexts + [
        context[-NUM_WORDS + 1 :] + continuation for context in contexts for continuation in continuations
    ]
    return {" ".join(row[i : i + NUM_WORDS]) for row in rows for i in range(len(row) - NUM_WORDS + 1)}


def _words(text: str) -> list[str]:
    from datatrove.utils.text import simplify_text

    from keylm.data.cleaning.datatrove_adapters import ENGLISH

    return ENGLISH.word_tokenize(simplify_text(text))


def _write_index(ngrams: dict[str, set[str]], folder: Path) -> None:
    from datatrove.utils.hashing import create_hash_func

    from keylm.data.cleaning.datatrove_adapters import HASHES

    hash_ngram = create_hash_func(HASHES)
    folder.mkdir()
    prefix_hashes: list[np.ndarray] = []
    for task, task_ngrams in ngrams.items():
        # Sorted, since the order of a set of strings differs from process to process.
        letters = {ngram: _letters(ngram) for ngram in sorted(task_ngrams)}
        indexed = {ngram: row for ngram, row in letters.items() if len(row) >= _PREFIX_LENGTHS[0]}
        if not indexed:
            raise UserError(
                f"task `{task}` has no {NUM_WORDS} words in a row to look for: leave it out of data.clean.decontaminate"
            )
        hashes = np.fromiter(map(hash_ngram, indexed), dtype=np.uint64, count=len(indexed))
        hashes.tofile(folder / f"{task}.index.hashes")
        prefix_hashes.append(_hash_longest_prefixes(list(indexed.values())))
    np.save(folder / _SCREEN, np.unique(np.concatenate(prefix_hashes)))


def _hash_longest_prefixes(rows: list[bytes]) -> np.ndarray:
    """The hash of each row's prefix, of the greatest of `_PREFIX_LENGTHS` that it has: (n,) uint64."""
    padded = b"".join(row[: _PREFIX_LENGTHS[-1]].ljust(_PREFIX_LENGTHS[-1]) for row in rows)
    hashes = _hash_prefixes(_prefixes(padded, np.arange(len(rows)) * _PREFIX_LENGTHS[-1]))
    longest = np.searchsorted(_PREFIX_LENGTHS, [len(row) for row in rows], side="right") - 1
    return np.asarray(hashes[np.arange(len(rows)), longest])


def _letters(text: str) -> bytes:
    """The runs of `a` to `z` in what datatrove's `simplify_text` makes of the text, separated by spaces."""
    data = np.frombuffer(text.encode("ascii", _FOLDING).translate(_LOWER), dtype=np.uint8)
    # Letters, and the first space after each run.
    kept = data != _SPACE
    kept[1:] |= kept[:-1].copy()
    return bytes(data[kept])


def _fold(error: UnicodeError) -> tuple[str, int]:
    """Called by `text.encode` for every run of characters that are not ASCII: the letters to encode instead."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # A handler, because `encode` passes over ASCII at the speed of C, and most text is nothing else.
    return "".join(map(_fold_character, error.object[error.start : error.end])), error.end


@lru_cache(maxsize=1 << 16)
def _fold_character(character: str) -> str:
    """`e` for `é`, nothing for a combining accent, a space for what is no Latin letter."""
    parts = unicodedata.normalize("NFD", character.lower())
    return "".join(part if part.isascii() else " " for part in parts if unicodedata.category(part) != "Mn")


codecs.register_error(_FOLDING, _fold)


def _prefixes(letters: bytes, starts: np.ndarray) -> np.ndarray:
    """The 48 letters from each of `starts` on, padded with spaces, as numbers of 8 letters: (n, 6) uint64."""
    padded = letters + b" " * _PREFIX_LENGTHS[-1]
    # A view with one row of 48 bytes for every position; only the rows of `starts` are copied.
    windows = np.ndarray(len(letters) + 1, dtype=f"V{_PREFIX_LENGTHS[-1]}", buffer=padded, strides=(1,))
    return np.asarray(windows[starts].view("<u8").reshape(-1, len(_WEIGHTS)))


def _hash_prefixes(prefixes: np.ndarray) -> np.ndarray:
    """Hashes of the first 24, 32 and 48 letters of every row: (n, 3) uint64."""
    return np.asarray(prefixes @ _WEIGHTS)


def _make_filter(folder: Path) -> NGramsDecontFilter:
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from loguru import logger

    from keylm.data.cleaning.datatrove_adapters import ENGLISH, HASHES

    logger.disable("datatrove")
    config = NGramsDecontConfig(n_grams=NUM_WORDS, hash_config=HASHES)
    return NGramsDecontFilter(str(folder), config, language=ENGLISH)
