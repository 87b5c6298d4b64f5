"""The error model: what a hurried hand and an unsure speller make of a text.

`docs/typos.md` says where the frequencies come from. What is not prose is left as it is: words with digits, signs or
letters other than English ones inside, names with inner capitals, addresses, code, control strings, line ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import lru_cache
from random import Random

from keylm.typos.keyboard import neighbours
from keylm.typos.misspellings import misspellings

_TRIES = 12
"""Draws for each character to be mistyped, before a text is left with fewer errors: not every error fits every text."""
_FIRST_LETTERS = 0.25
"""Share of the errors drawn for a word's first letter that are made: few are (Yannakoudakis and Fawthrop 1983)."""

_TOO_LATE = 0.1
"""Share of the shift slips that come too late, in chat logs."""

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|^(?: {4}|\t)[^\n]*", re.DOTALL | re.MULTILINE)
_CHUNK = re.compile(r"\S+")
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_INNER_CAPITAL = re.compile(r".[A-Z]")
_PROSE = re.compile(rf"""[("'“‘\[*]*{_WORD.pattern}(?:[-–—]+{_WORD.pattern})*[.,;:!?…)"'”’\]*]*""")


def mistype(text: str, rate: float, rng: Random, keep: Set[str] = frozenset()) -> str:
    """`text` with about a share of `rate` of its characters mistyped.

    The share is the edit distance (Levenshtein 1966; two swapped letters count as two) by the characters of the words
    that can be mistyped, the spaces behind them included. Words of `keep`, in small letters, are left as they are.
    """
    page = _Page(text, keep)
    budget = rate * page.size
    left = int(budget) + (rng.random() < budget % 1)
    for _ in range(_TRIES * left):
        if left <= 0:
            break
        (error,) = rng.choices(_ERRORS, _WEIGHTS)
        left -= error(page, rng, left)
    return "".join(page.characters)


def words(text: str) -> frozenset[str]:
    """The words of a text in small letters, as `keep` takes them."""
    return frozenset(match[0].lower() for match in _WORD.finditer(text))


class _Page:
    """A text in the making: a string for each of its characters, and the places where something can go wrong."""

    def __init__(self, text: str, keep: Set[str]) -> None:
        self.text, self.characters = text, list(text)
        self.is_free = [True] * len(text)
        self.words: list[tuple[int, int]] = []
        self.spaces: list[int] = []
        last = -1
        for chunk in _CHUNK.finditer(_CODE.sub(lambda code: "\0" * len(code[0]), text)):
            spans = self._spans(chunk[0], chunk.start(), keep)
            if spans and chunk.start() == last + 1 == spans[0][0] and text[last] == " ":
                self.spaces.append(last)
            self.words += spans
            last = chunk.end() if spans and chunk.end() == spans[-1][1] else -1
        self.letters = [index for start, end in self.words for index in range(start, end) if text[index].isalpha()]
        self.firsts = {start for start, _ in self.words}
        self.size = sum(end - start + 1 for start, end in self.words)

    def _spans(self, chunk: str, start: int, keep: Set[str]) -> list[tuple[int, int]]:
        """Where the words of a chunk lie that can be mistyped."""
        if not _PROSE.fullmatch(chunk):
            return []
        return [
            (start + word.start(), start + word.end())
            for word in _WORD.finditer(chunk)
            if word[0].lower() not in keep and not _INNER_CAPITAL.search(word[0])
        ]

    def take(self, start: int, end: int) -> bool:
        """Whether the characters from `start` to `end` are as they were; from now on they are not to be touched."""
        if not all(self.is_free[start:end]):
            return False
        self.is_free[start:end] = [False] * (end - start)
        return True

    def letter(self, rng: Random) -> int | None:
        """A letter, seldom a word's first."""
        if not self.letters:
            return None
        index = rng.choice(self.letters)
        return None if index in self.firsts and rng.random() > _FIRST_LETTERS else index

    def word(self, rng: Random) -> tuple[int, int]:
        """Where a word begins and ends."""
        return rng.choice(self.words) if self.words else (0, 0)

    def pair(self, rng: Random) -> int | None:
        """The first of two letters of a word."""
        index = self.letter(rng)
        return index if index is not None and self.text[index + 1 : index + 2].isalpha() else None


def _neighbour(page: _Page, rng: Random, _left: int) -> int:
    """The key beside the right one."""
    index = page.letter(rng)
    if index is None or not page.take(index, index + 1):
        return 0
    page.characters[index] = _beside(page.text[index], rng)
    return 1


def _inserted(page: _Page, rng: Random, _left: int) -> int:
    """The right key and one beside it."""
    index = page.letter(rng)
    if index is None or not page.take(index, index + 1):
        return 0
    pair = [page.text[index], _beside(page.text[index], rng)]
    page.characters[index] = "".join(pair if rng.random() < 0.5 else reversed(pair))
    return 1


def _doubled(page: _Page, rng: Random, _left: int) -> int:
    """The same key twice."""
    index = page.letter(rng)
    if index is None or not page.take(index, index + 1):
        return 0
    page.characters[index] += page.text[index].lower()
    return 1


def _dropped(page: _Page, rng: Random, _left: int) -> int:
    """A letter that was not typed. Words of one or two letters keep theirs."""
    start, end = page.word(rng)
    if end - start < 3:
        return 0
    index = rng.randrange(start + (rng.random() > _FIRST_LETTERS), end)
    if not page.text[index].isalpha() or not page.take(index, index + 1):
        return 0
    page.characters[index] = ""
    return 1


def _singled(page: _Page, rng: Random, _left: int) -> int:
    """A double letter typed once."""
    index = page.pair(rng)
    if index is None or page.text[index] != page.text[index + 1] or not page.take(index, index + 2):
        return 0
    page.characters[index] = ""
    return 1


def _swapped(page: _Page, rng: Random, left: int) -> int:
    """Two letters in the wrong order; capitals stay where they were."""
    index = page.pair(rng)
    if index is None or left < 2 or not page.take(index, index + 2):
        return 0
    first, second = page.text[index], page.text[index + 1]
    page.characters[index : index + 2] = _like(first, second), _like(second, first)
    return 0 if first.lower() == second.lower() else 2


def _misspelt(page: _Page, rng: Random, left: int) -> int:
    """A misspelling that is known of the word: by ear, by wrong rule, or by the hand."""
    start, end = page.word(rng)
    word = page.text[start:end]
    known = misspellings(word.lower())
    wrong = _like(word, rng.choice(known)) if known else word
    cost = edit_distance(word, wrong)
    if not 0 < cost <= left or not page.take(start, end):
        return 0
    page.characters[start:end] = [wrong, *[""] * (end - start - 1)]
    return cost


def _run_together(page: _Page, rng: Random, _left: int) -> int:
    """No space between two words."""
    if not page.spaces:
        return 0
    index = rng.choice(page.spaces)
    if not page.take(index, index + 1):
        return 0
    page.characters[index] = ""
    return 1


def _no_apostrophe(page: _Page, rng: Random, _left: int) -> int:
    """`dont` for `don't`."""
    start, end = page.word(rng)
    marks = [index for index in range(start, end) if page.text[index] in "'’"]
    if not marks or not page.take(marks[0], marks[0] + 1):
        return 0
    page.characters[marks[0]] = ""
    return 1


def _no_capital(page: _Page, rng: Random, _left: int) -> int:
    """A small letter where a capital belongs."""
    start, _ = page.word(rng)
    if not page.text[start : start + 1].isupper() or not page.take(start, start + 1):
        return 0
    page.characters[start] = page.text[start].lower()
    return 1


def _late_shift(page: _Page, rng: Random, left: int) -> int:
    """The shift key held too long, `THe`, or pressed too late, `tHe`."""
    start, end = page.word(rng)
    first, second = page.text[start : start + 1], page.text[start + 1 : start + 2]
    late = rng.random() < _TOO_LATE
    if not first.isupper() or not second.isalpha() or end - start < 3 or left < 1 + late:
        return 0
    if not page.take(start, start + 2):
        return 0
    page.characters[start : start + 2] = [first.lower() if late else first, second.upper()]
    return 1 + late


_Error = Callable[[_Page, Random, int], int]
FREQUENCIES: dict[_Error, float] = {
    _dropped: 18,
    _neighbour: 16,
    _swapped: 10,
    _singled: 6,
    _doubled: 5,
    _inserted: 5,
    _misspelt: 15,
    _no_apostrophe: 10,
    _no_capital: 8,
    _run_together: 4,
    _late_shift: 3,
}
"""Of a hundred errors; one that does not fit is drawn again, so in a text without apostrophes the others are more."""
_ERRORS, _WEIGHTS = tuple(FREQUENCIES), tuple(FREQUENCIES.values())


def _beside(letter: str, rng: Random) -> str:
    """A key beside the letter's, under the same shift."""
    (key,) = rng.choices(*neighbours(letter.lower()))
    return _like(letter, key)


def _like(model: str, word: str) -> str:
    """`word` with a capital first letter where `model` has one."""
    return word[:1].upper() + word[1:] if model[:1].isupper() else word.lower()


@lru_cache(maxsize=1 << 16)
def edit_distance(first: str, second: str) -> int:
    """Fewest characters to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for above, left in enumerate(first, start=1):
        diagonal, row[0] = row[0], above
        for column, right in enumerate(second, start=1):
            diagonal, row[column] = (
                row[column],
                min(diagonal + (left != right), row[column] + 1, row[column - 1] + 1),
            )
    return row[-1]
