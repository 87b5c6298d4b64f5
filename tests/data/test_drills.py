"""Drills: deterministic, mostly copies, and free of the words that evaluation holds out."""

from __future__ import annotations

import re

from keylm.data import drills
from keylm.data.instructions.words import words


def test_a_document_depends_on_seed_and_number_alone() -> None:
    first = list(drills.generate(50, seed=1))
    assert list(drills.generate(20, seed=1)) == first[:20]
    assert list(drills.generate(50, seed=2)) != first


def test_a_phrase_comes_five_times_or_more() -> None:
    for text in drills.generate(300, seed=0):
        head = text[: len(text) // 9 // 2].casefold()
        assert text.casefold().count(head) >= 5, text


def test_no_held_out_word_is_drilled() -> None:
    drilled = set(re.findall(r"[a-z]+", " ".join(drills.generate(3000, seed=0)).lower()))
    held_out = {word.lower() for name in ("words", "nouns", "modifiers") for word in words(name, held_out=True)}
    # Random letters can spell a short word by chance.
    assert not {word for word in drilled & held_out if len(word) > 6}
    assert len(drilled & {word.lower() for word in words("words", held_out=False)}) > 300
