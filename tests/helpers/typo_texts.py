"""Texts that several tests of typos use."""

from __future__ import annotations

PROSE = (
    "The morning train was late again, so Margaret walked along the river and didn't hurry at all. She believed that "
    "nobody would receive her before eleven, and she thought about the letter which her brother had written. "
    "“It's definitely his handwriting,” she'd said, although the address on the envelope looked different. Every "
    "beginning is difficult; this one happened to be harder than most, because their business had separate accounts."
)


TALK = (
    {"role": "user", "content": "What is the weather going to be like tomorrow morning?"},
    {"role": "assistant", "content": "It will rain until noon, I believe."},
    {"role": "user", "content": "Should I bring my umbrella to the garden party then?"},
    {"role": "assistant", "content": "Yes, that would be wise."},
)
