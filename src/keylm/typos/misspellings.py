"""Misspellings by the word that was meant: codespell's dictionary of corrections, inverted.

codespell (https://github.com/codespell-project/codespell) collects misspellings that people made. Only its dictionary
(CC BY-SA 3.0) is read, as a file: its code is under the GPL and is not imported.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

_PLAIN = re.compile(r"[a-z']+")


def misspellings(word: str) -> tuple[str, ...]:
    """The known misspellings of a lower-case word, in the order of the dictionary; empty if there are none."""
    return _misspellings_by_word().get(word, ())


@cache
def _misspellings_by_word() -> dict[str, tuple[str, ...]]:
    """Every misspelling in plain letters that has only one correction, by that correction."""
    by_word: dict[str, list[str]] = {}
    # Located through the package's metadata, because importing it would run GPL code.
    path = Path(str(distribution("codespell").locate_file("codespell_lib/data/dictionary.txt")))
    for line in path.read_text(encoding="utf-8").splitlines():
        # `recieve->receive`; several corrections are separated by commas, which `_PLAIN` excludes.
        wrong, _, meant = line.lower().partition("->")
        if _PLAIN.fullmatch(wrong) and _PLAIN.fullmatch(meant):
            by_word.setdefault(meant, []).append(wrong)
    return {meant: tuple(wrongs) for meant, wrongs in by_word.items()}
