"""Misspellings that people really made, by the word they meant: codespell's dictionary, the other way round.

codespell (https://github.com/codespell-project/codespell) collects misspellings in order to correct them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

_PLAIN = re.compile(r"[a-z']+")


def misspellings(word: str) -> tuple[str, ...]:
    """The known misspellings of a word in small letters, in the dictionary's order; none for a word it has not."""
    return _by_word().get(word, ())


@cache
def _by_word() -> dict[str, tuple[str, ...]]:
    """Misspellings of one word in plain letters that can mean only one word."""
    found: dict[str, list[str]] = {}
    path = Path(str(distribution("codespell").locate_file("codespell_lib/data/dictionary.txt")))
    for line in path.read_text(encoding="utf-8").splitlines():
        wrong, _, meant = line.lower().partition("->")
        if _PLAIN.fullmatch(wrong) and _PLAIN.fullmatch(meant):
            found.setdefault(meant, []).append(wrong)
    return {meant: tuple(wrongs) for meant, wrongs in found.items()}
