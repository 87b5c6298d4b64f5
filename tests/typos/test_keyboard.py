from __future__ import annotations

import string

import pytest
from helpers.typo_texts import PROSE

from keylm.typos.keyboard import neighbors

NEIGHBORS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "awedzx", "d": "serfxc", "f": "drtgcv", "g": "ftyhvb", "h": "gyujbn", "j": "huiknm",
    "k": "jiolm", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
"""The keys that touch each key, read off a keyboard."""


def test_the_keys_around_a_key() -> None:
    assert {letter: set(neighbors(letter)[0]) for letter in string.ascii_lowercase} == {
        letter: set(around) for letter, around in NEIGHBORS.items()
    }


def test_nearer_keys_are_likelier() -> None:
    weights = dict(zip(*neighbors("g"), strict=True))
    assert weights["f"] == pytest.approx(weights["h"])
    assert weights["f"] > weights["t"] > weights["b"] > weights["y"]


def test_most_wrong_keys_are_in_the_same_row() -> None:
    """Grudin (1983): 59% of novices' substitutions."""
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    total = same = 0.0
    for letter in filter(str.isalpha, PROSE.lower()):
        keys, weights = neighbors(letter)
        row = next(row for row in rows if letter in row)
        total += 1
        same += sum(weight for key, weight in zip(keys, weights, strict=True) if key in row) / sum(weights)
    assert same / total == pytest.approx(0.59, abs=0.02)
