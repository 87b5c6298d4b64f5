from __future__ import annotations

import re
from pathlib import Path

import pytest

from keylm.typos.misspellings import misspellings

LIST = Path(__file__).parents[2] / "src" / "keylm" / "typos" / "misspellings.txt"


@pytest.mark.parametrize(
    ("word", "wrong"), [("receive", "recieve"), ("definitely", "definately"), ("because", "becuase"), ("the", "teh")]
)
def test_what_people_write_is_known(word: str, wrong: str) -> None:
    assert wrong in misspellings(word)


def test_a_word_that_nobody_misspells_has_none() -> None:
    assert misspellings("xylograph") == ()


@pytest.mark.parametrize("word", ["cache", "a lot", "you're"])
def test_ambiguous_misspellings_are_not_used(word: str) -> None:
    """`ache` may be `cache`, `alot` may be `a lot` or `allot`, and `youre` may be `your` or `you're`."""
    assert not {"ache", "alot", "youre"} & set(misspellings(word))


def test_the_list_is_plain_and_names_its_license() -> None:
    lines = LIST.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    assert "CC BY-SA 3.0" in " ".join(line for line in lines if line.startswith("#"))
    assert all(re.fullmatch(r"[a-z']+(?: [a-z']+)+", row) for row in rows)
    wrongs = [wrong for row in rows for wrong in row.split()[1:]]
    # As docs/typos.md counts them. One misspelling stands for one word.
    assert (len(rows), len(wrongs)) == (13_920, 57_827)
    assert len(set(wrongs)) == len(wrongs)
