from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from keylm.instructions import word_lists


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1))
def test_singular_and_plural_are_held_out_together(word: str) -> None:
    assert (
        word_lists.is_held_out_word(word)
        == word_lists.is_held_out_word(word + "s")
        == word_lists.is_held_out_word(word.upper())
    )


def test_a_fifth_of_every_word_list_is_held_out() -> None:
    for name in ("nouns", "modifiers", "words", "first_names", "places"):
        kept, held = word_lists.word_list(name, False), word_lists.word_list(name, True)
        assert not set(kept) & set(held)
        listed = (files("keylm.instructions") / f"{name}.txt").read_text(encoding="utf-8").split()
        assert 0.1 < len(held) / len(set(listed)) < 0.3
