"""What cleaning changes, what it leaves alone, and what it throws out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.data.clean import EMPTY_MESSAGE, NO_ASSISTANT, NOT_TEXT, TOO_SHORT, clean, tidy
from keylm.data.documents import Document


@pytest.mark.parametrize(
    ("raw", "tidied"),
    [
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        ("one  \ntwo\t\n  three", "one\ntwo\n  three"),
        ("one\n\n\n\n\n\ntwo\n\n\nthree", "one\n\n\ntwo\n\n\nthree"),
        ("\n\n  one\n\n", "  one"),
        ("\ufeffb\x00e\x1bl\x07l\x7f", "bell"),
        ("half a pair \ud83e stays out", "half a pair  stays out"),
        ("a\ttab, a naïve 猫, e\u0301 and ﬁne 🦊", "a\ttab, a naïve 猫, e\u0301 and ﬁne 🦊"),
    ],
)
def test_tidying_by_hand(raw, tidied):
    assert tidy(raw) == tidied


@given(text=st.text())
def test_tidied_text_is_tidy_and_stays_so(text):
    once = tidy(text)
    assert tidy(once) == once
    assert not re.search(r"[\r\x00-\x08\x0b-\x1f\x7f]| \n|\n\n\n\n", once)


@given(text=st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_marks_that_can_be_read_are_kept(text):
    assert tidy(text) == text


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Short.", TOO_SHORT),
        ("", TOO_SHORT),
        (" \n\n ", TOO_SHORT),
        ("0.123, 4.567; 8.901 | 2.345, 6.789; " * 5, NOT_TEXT),
        ("Это вполне обычное предложение.", Document(text="Это вполне обычное предложение.")),
        ("An ordinary sentence, number 7.\n", Document(text="An ordinary sentence, number 7.")),
    ],
)
def test_texts(text, outcome):
    assert clean(Document(text=text), min_document_bytes=20) == outcome


def test_without_a_least_size_an_empty_text_is_dropped_still():
    assert clean(Document(text="\n"), min_document_bytes=0) == TOO_SHORT


def conversation(*turns):
    return Document(messages=tuple({"role": role, "content": content} for role, content in turns))


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        (conversation(("user", " Hi \r\n"), ("assistant", "\nHo")), conversation(("user", "Hi"), ("assistant", "Ho"))),
        (conversation(("user", "Hi"), ("assistant", " \x00 ")), EMPTY_MESSAGE),
        (conversation(("system", "Be kind."), ("user", "Hi")), NO_ASSISTANT),
        (conversation(), NO_ASSISTANT),
    ],
)
def test_conversations(document, outcome):
    assert clean(document, min_document_bytes=1000) == outcome
