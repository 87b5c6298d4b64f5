from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.typos import framings


@pytest.mark.parametrize("framing", [*framings.PLAIN, *framings.PLAIN_BACKWARDS])
def test_a_framing_holds_each_text_once(framing: str) -> None:
    assert (framing.count("{typed}"), framing.count("{meant}")) == (1, 1)


@pytest.mark.parametrize("turns", [*framings.CHAT, *framings.CHAT_BACKWARDS])
def test_a_question_and_its_answer_hold_one_text_each(turns: tuple[str, str]) -> None:
    slots = [re.findall(r"\{(\w+)\}", turn) for turn in turns]
    assert sorted(map(tuple, slots)) == [("meant",), ("typed",)]


@given(meant=st.text(min_size=1), typed=st.text(min_size=1), seed=st.integers(0, 999), is_chat=st.booleans())
def test_both_texts_are_in_a_pair_word_for_word(meant: str, typed: str, seed: int, is_chat: bool) -> None:
    pair = framings.contrastive_pair(typed, meant, is_chat, Random(seed))
    assert pair.messages is not None or not is_chat
    whole = "\0".join(pair.contents)
    assert meant in whole
    assert typed in whole
