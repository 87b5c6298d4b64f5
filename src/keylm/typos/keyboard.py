"""Where the letters lie on a QWERTY keyboard, and which key a finger hits that misses its own."""

from __future__ import annotations

from functools import cache
from math import hypot

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""Letters by row, and how far to the right the row begins, in key widths (ANSI and ISO keyboards alike)."""
_ROW_HEIGHT = 1.15
"""Keys are square, but a finger goes astray sideways more often than up or down. With this height 59% of the wrong keys
in English text lie in the same row, which is Grudin's (1983) share for novices."""
_REACH = 1.5
"""Keys further away than this are not hit by mistake."""

_PLACES = {
    letter: (start + column, row * _ROW_HEIGHT)
    for row, (letters, start) in enumerate(_ROWS)
    for column, letter in enumerate(letters)
}


@cache
def neighbours(letter: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The keys around a small letter from `a` to `z`, and their weights: the cube of how near each is."""
    near = {other: distance(letter, other) for other in _PLACES if other != letter}
    near = {other: far for other, far in near.items() if far < _REACH}
    return tuple(near), tuple(far**-3 for far in near.values())


def distance(first: str, second: str) -> float:
    """Between the middles of two letters' keys, in key widths, up and down stretched."""
    (x, y), (u, v) = _PLACES[first], _PLACES[second]
    return hypot(x - u, y - v)
