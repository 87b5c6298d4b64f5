"""Misspellings by the word that was meant, from `misspellings.txt`, which names its origin and its license."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def misspellings(word: str) -> tuple[str, ...]:
    """The known misspellings of a lower-case word, in the order of the list; empty if there are none."""
    return _misspellings_by_word().get(word, ())


@cache
def _misspellings_by_word() -> dict[str, tuple[str, ...]]:
    lines = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    words = (line.split() for line in lines if not line.startswith("#"))
    return {meant: tuple(wrongs) for meant, *wrongs in words}
