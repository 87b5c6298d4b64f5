"""The error model: the typos that a fast typist and an uncertain speller make.

`docs/typos.md` gives the sources of the frequencies. Text that is not English prose is left unchanged: words with
digits, symbols or other letters inside, words with inner capitals, addresses, code, control strings and line ends.

    mistype("I think they're coming tomorrow.", rate=0.1, rng=Random(0))

draws errors by their frequency and applies each at a random place, until 10% of the characters are changed.
A character is changed at most once, so errors never undo each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import lru_cache
from random import Random

from keylm.typos.keyboard import neighbors
from keylm.typos.misspellings import misspellings

_TRIES = 12
"""Draws for each character to change. Not every error fits every text, so some texts get fewer errors."""
_FIRST_LETTERS = 0.25
"""Fraction of the errors drawn for a word's first letter that are made: few are (Yannakoudakis and Fawthrop 1983)."""

_LATE_SHIFTS = 0.1
"""Fraction of the shift-key slips in chat logs that come too late (`tHe`) instead of lasting too long (`THe`)."""

# A typo in code is a bug, not a spelling that stands for a word.
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|^(?: {4}|\t)[^\n]*", re.DOTALL | re.MULTILINE)
_CHUNK = re.compile(r"\S+")
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_INNER_CAPITAL = re.compile(r".[A-Z]")
_PROSE = re.compile(rf"""[("'“‘\[*]*{_WORD.pattern}(?:[-–—]+{_WORD.pattern})*[.,;:!?…)"'”’\]*]*""")


def mistype(text: str, rate: float, rng: Random, keep: Set[str] = frozenset()) -> str:
    """Mistype about a fraction `rate` of the characters of `text`.

    Args:
        text: The text to mistype.
        rate: Edit distance (Levenshtein 1966; two transposed letters count as two) per character of the words that can
            be mistyped, including the space after each.
        rng: Source of randomness; the result is a pure function of it and the other arguments.
        keep: Words, in lower case, that stay unchanged.
    """
    editable = _EditableText(text, keep)
    budget = rate * editable.size
    # The fractional part is rounded at random, so that short texts meet the rate on average.
    remaining = int(budget) + (rng.random() < budget % 1)
    for _ in range(_TRIES * remaining):
        if remaining <= 0:
            break
        (error,) = rng.choices(_ERRORS, _WEIGHTS)
        remaining -= error(editable, rng, remaining)
    return "".join(editable.characters)


def words(text: str) -> frozenset[str]:
    """The words of a text in lower case, as `mistype` takes them for `keep`."""
    return frozenset(match[0].lower() for match in _WORD.finditer(text))


class _EditableText:
    """A text as one string per character, and the places where errors can be made."""

    def __init__(self, text: str, keep: Set[str]) -> None:
        self.text, self.characters = text, list(text)
        self.is_unchanged = [True] * len(text)
        self.words: list[tuple[int, int]] = []
        self.spaces: list[int] = []
        # Where the last chunk ended, if it ended in a word: the space there separates it from a word that follows.
        last_end = -1
        # Blanked out at the same length, so that positions stay; the null character is no prose.
        for chunk in _CHUNK.finditer(_CODE.sub(lambda code: "\0" * len(code[0]), text)):
            spans = self._word_spans(chunk[0], chunk.start(), keep)
            if spans and chunk.start() == last_end + 1 == spans[0][0] and text[last_end] == " ":
                self.spaces.append(last_end)
            self.words += spans
            last_end = chunk.end() if spans and chunk.end() == spans[-1][1] else -1
        self.letters = [index for start, end in self.words for index in range(start, end) if text[index].isalpha()]
        self.word_starts = {start for start, _ in self.words}
        self.size = sum(end - start + 1 for start, end in self.words)

    def _word_spans(self, chunk: str, start: int, keep: Set[str]) -> list[tuple[int, int]]:
        """The start and end of each word of a chunk that can be mistyped."""
        if not _PROSE.fullmatch(chunk):
            return []
        return [
            (start + word.start(), start + word.end())
            for word in _WORD.finditer(chunk)
            if word[0].lower() not in keep and not _INNER_CAPITAL.search(word[0])
        ]

    def claim(self, start: int, end: int) -> bool:
        """Reserve the characters from `start` to `end` for one error; False if one of them is reserved already."""
        if not all(self.is_unchanged[start:end]):
            return False
        self.is_unchanged[start:end] = [False] * (end - start)
        return True

    def random_letter(self, rng: Random) -> int | None:
        """The index of a letter, rarely the first of a word; None if the draw came to nothing."""
        if not self.letters:
            return None
        index = rng.choice(self.letters)
        return None if index in self.word_starts and rng.random() > _FIRST_LETTERS else index

    def random_word(self, rng: Random) -> tuple[int, int]:
        """The start and end of a word."""
        return rng.choice(self.words) if self.words else (0, 0)

    def random_letter_pair(self, rng: Random) -> int | None:
        """The index of the first of two adjacent letters; None if the draw came to nothing."""
        index = self.random_letter(rng)
        return index if index is not None and self.text[index + 1 : index + 2].isalpha() else None


# Each error changes the text at a random place and returns how many characters it changed: 0 if it does not fit there
# or costs more than `remaining`.


def _substitute(text: _EditableText, rng: Random, _remaining: int) -> int:
    """A key next to the right one: `shpuld`."""
    index = text.random_letter(rng)
    if index is None or not text.claim(index, index + 1):
        return 0
    text.characters[index] = _adjacent_key(text.text[index], rng)
    return 1


def _insert(text: _EditableText, rng: Random, _remaining: int) -> int:
    """The right key and one next to it: `receigve`."""
    index = text.random_letter(rng)
    if index is None or not text.claim(index, index + 1):
        return 0
    pair = [text.text[index], _adjacent_key(text.text[index], rng)]
    text.characters[index] = "".join(pair if rng.random() < 0.5 else reversed(pair))
    return 1


def _double(text: _EditableText, rng: Random, _remaining: int) -> int:
    """The same key twice: `weatther`."""
    index = text.random_letter(rng)
    if index is None or not text.claim(index, index + 1):
        return 0
    text.characters[index] += text.text[index].lower()
    return 1


def _omit(text: _EditableText, rng: Random, _remaining: int) -> int:
    """A missing letter: `pobably`. Words of one or two letters are left alone."""
    start, end = text.random_word(rng)
    if end - start < 3:
        return 0
    # Three in four draws leave out the first letter.
    index = rng.randrange(start + (rng.random() > _FIRST_LETTERS), end)
    if not text.text[index].isalpha() or not text.claim(index, index + 1):
        return 0
    text.characters[index] = ""
    return 1


def _merge_double(text: _EditableText, rng: Random, _remaining: int) -> int:
    """A double letter typed once: `beginers`."""
    index = text.random_letter_pair(rng)
    if index is None or text.text[index] != text.text[index + 1] or not text.claim(index, index + 2):
        return 0
    text.characters[index] = ""
    return 1


def _transpose(text: _EditableText, rng: Random, remaining: int) -> int:
    """Two letters in the wrong order: `thikn`. A capital stays in its place."""
    index = text.random_letter_pair(rng)
    if index is None or remaining < 2 or not text.claim(index, index + 2):
        return 0
    first, second = text.text[index], text.text[index + 1]
    text.characters[index : index + 2] = _match_first_case(first, second), _match_first_case(second, first)
    return 0 if first.lower() == second.lower() else 2


def _misspell(text: _EditableText, rng: Random, remaining: int) -> int:
    """A known misspelling of the word: `definately`."""
    start, end = text.random_word(rng)
    word = text.text[start:end]
    known = misspellings(word.lower())
    wrong = _match_first_case(word, rng.choice(known)) if known else word
    cost = edit_distance(word, wrong)
    if not 0 < cost <= remaining or not text.claim(start, end):
        return 0
    # The whole word in its first place and nothing in the others, so that the places after it keep their indices.
    text.characters[start:end] = [wrong, *[""] * (end - start - 1)]
    return cost


def _omit_space(text: _EditableText, rng: Random, _remaining: int) -> int:
    """No space between two words: `befoethen`."""
    if not text.spaces:
        return 0
    index = rng.choice(text.spaces)
    if not text.claim(index, index + 1):
        return 0
    text.characters[index] = ""
    return 1


def _omit_apostrophe(text: _EditableText, rng: Random, _remaining: int) -> int:
    """No apostrophe: `theyre`."""
    start, end = text.random_word(rng)
    apostrophes = [index for index in range(start, end) if text.text[index] in "'’"]
    if not apostrophes or not text.claim(apostrophes[0], apostrophes[0] + 1):
        return 0
    text.characters[apostrophes[0]] = ""
    return 1


def _omit_capital(text: _EditableText, rng: Random, _remaining: int) -> int:
    """A lower-case first letter: `monday`."""
    start, _ = text.random_word(rng)
    if not text.text[start : start + 1].isupper() or not text.claim(start, start + 1):
        return 0
    text.characters[start] = text.text[start].lower()
    return 1


def _slip_shift(text: _EditableText, rng: Random, remaining: int) -> int:
    """The shift key held too long, `THe`, or pressed too late, `tHe`."""
    start, end = text.random_word(rng)
    first, second = text.text[start : start + 1], text.text[start + 1 : start + 2]
    # Late, two letters are wrong instead of one.
    is_late = rng.random() < _LATE_SHIFTS
    if not first.isupper() or not second.isalpha() or end - start < 3 or remaining < 1 + is_late:
        return 0
    if not text.claim(start, start + 2):
        return 0
    text.characters[start : start + 2] = [first.lower() if is_late else first, second.upper()]
    return 1 + is_late


_Error = Callable[[_EditableText, Random, int], int]
FREQUENCIES: dict[_Error, float] = {
    _omit: 18,
    _substitute: 16,
    _transpose: 10,
    _merge_double: 6,
    _double: 5,
    _insert: 5,
    _misspell: 15,
    _omit_apostrophe: 10,
    _omit_capital: 8,
    _omit_space: 4,
    _slip_shift: 3,
}
"""Weight of each error, in percent. An error that does not fit is drawn again, so a text without apostrophes gets more
of the others."""
_ERRORS, _WEIGHTS = tuple(FREQUENCIES), tuple(FREQUENCIES.values())


def _adjacent_key(letter: str, rng: Random) -> str:
    """A key next to the letter's, in the same case."""
    (key,) = rng.choices(*neighbors(letter.lower()))
    return _match_first_case(letter, key)


def _match_first_case(model: str, word: str) -> str:
    """`word` with its first letter capitalized if that of `model` is, else in lower case."""
    return word[:1].upper() + word[1:] if model[:1].isupper() else word.lower()


@lru_cache(maxsize=1 << 16)
def edit_distance(first: str, second: str) -> int:
    """The smallest number of characters to insert, delete or replace (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for above, left in enumerate(first, start=1):
        diagonal, row[0] = row[0], above
        for column, right in enumerate(second, start=1):
            diagonal, row[column] = (
                row[column],
                min(diagonal + (left != right), row[column] + 1, row[column - 1] + 1),
            )
    return row[-1]
