"""The stress texts for tokenizers."""

from __future__ import annotations

import unicodedata

from keylm.export.tokenizer_stress_texts import stress_texts
from keylm.tokenizer.tokenizer import CONTROL_TOKENS

NUM_TEXTS = 20_000


def test_they_have_every_code_point_and_broken_tokens() -> None:
    texts = stress_texts(NUM_TEXTS)
    characters = set("".join(texts))
    assert all(chr(code) in characters for code in range(0x110000) if unicodedata.category(chr(code))[0] not in "C")
    assert texts == stress_texts(NUM_TEXTS)
    for string in (*CONTROL_TOKENS, "<|im_end |>", "\u200d", "\r\n", "\x00"):
        assert sum(string in text for text in texts) > 3
