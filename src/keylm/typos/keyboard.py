"""The QWERTY keyboard: where its letters lie, and which key is hit instead of the right one."""

from __future__ import annotations

from functools import cache
from math import hypot

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""The letters of each row, and its offset to the right in key widths (the same on ANSI and ISO keyboards)."""
_ROW_HEIGHT = 1.15
"""Distance between rows in key widths. Keys are square, but fingers miss sideways more often than up or down: at this
height 59% of the wrong keys in English text lie in the same row, Grudin's (1983) share for novices."""
_REACH = 1.5
"""Keys at this distance or more are not hit by mistake."""

_POSITIONS = {
    letter: (offset + column, row * _ROW_HEIGHT)
    for row, (letters, offset) in enumerate(_ROWS)
    for column, letter in enumerate(letters)
}


@cache
def neighbors(letter: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The keys around a letter from `a` to `z`, and their weights: the inverse cubes of their distances."""
    distances = {other: distance(letter, other) for other in _POSITIONS if other != letter}
    near = {other: value for other, value in distances.items() if value < _REACH}
    return tuple(near), tuple(value**-3 for value in near.values())


def distance(first: str, second: str) -> float:
    """Distance between the centers of two keys in key widths, with rows `_ROW_HEIGHT` apart."""
    (x1, y1), (x2, y2) = _POSITIONS[first], _POSITIONS[second]
    return hypot(x1 - x2, y1 - y2)
