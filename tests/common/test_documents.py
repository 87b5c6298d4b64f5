"""Digests and the validation split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.common.documents import Document, is_held_out

TALK = ({"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Hello"})


def test_bytes_are_those_of_the_contents_in_utf8():
    assert Document(text="Grüße 🦊").num_bytes == len("Grüße 🦊".encode())
    assert Document(messages=TALK).num_bytes == len("GrüßeHello".encode())


def test_digests_are_the_same_in_every_process():
    """The numbers are those of `b2sum -l 64`, for the text and for the conversation as JSON pairs."""
    assert Document(text="The same text.").digest == 0xC1C7327B7CFB591C
    assert Document(messages=TALK).digest == 0x0156E97E49143B74


def test_digests_tell_roles_and_turns_apart():
    swapped = tuple({**turn, "role": "user"} for turn in TALK)
    joined = ({"role": "user", "content": "GrüßeHello"},)
    assert len({Document(messages=messages).digest for messages in (TALK, swapped, joined)}) == 3


@given(texts=st.lists(st.text(), unique=True, max_size=50))
def test_different_texts_have_different_digests(texts):
    assert len({Document(text=text).digest for text in texts}) == len(texts)


@pytest.mark.parametrize("fraction", [0.005, 0.1, 0.4])
def test_the_split_holds_out_its_fraction(fraction):
    held_out = sum(is_held_out(Document(text=f"document {number}").digest, fraction) for number in range(20_000))
    assert held_out / 20_000 == pytest.approx(fraction, abs=0.01)


def test_a_larger_fraction_holds_out_a_superset():
    digests = [Document(text=f"document {number}").digest for number in range(1000)]
    small, large = ({digest for digest in digests if is_held_out(digest, fraction)} for fraction in (0.1, 0.2))
    assert small < large
