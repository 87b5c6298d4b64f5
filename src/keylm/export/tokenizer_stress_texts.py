"""Texts that two tokenizers read differently if they differ at all."""

from __future__ import annotations

import random
import unicodedata

from keylm.tokenizer.tokenizer import CONTROL_TOKENS

_LETTERS_AT_ONCE = 256
_PIECES = [
    *"aAzZéßſıİĳǅñ中あ한अא٣४Ⅷ½²①",
    *["'s", "'S", "’s", "'ll", "'LL", "don't", "I'VE", "the", " The", "naïve", "日本語", "Привет", "مرحبا", "नमस्ते"],
    *["0", "12", "345", "6789", "1.5e-3", "1,000,000", "٣٤", "१२३"],
    *[" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff"],
    *["\x00", "\x07", "\x1b[0m", "\x7f", "\x85", "\u2028", "\u2029", "\ufffd", "\U0010ffff"],
    *["👩\u200d👩\u200d👧", "🏳️\u200d🌈", "👍🏽", "🇺🇳", "1️⃣", "e\u0301", "\u0301", "Z̷͑", "ﷺ", "𝔘", "𐍈"],
    *["<|", "|>", "<|im_", "im_end|>", "<|im_end|", "<|im_end |>", "<|IM_END|>", "<||im_end||>", *CONTROL_TOKENS],
    *[".", ",", "...", "?!", "--", "—", "#", "```", "$$", "://", "_", "()", "\\", '"', "`", "{{", "}}"],
]


def stress_texts(num: int, seed: int = 0) -> list[str]:
    """`num` texts: every code point that Unicode assigns, in its order, then random joins of awkward pieces.

    The pieces are letters of many scripts, digits, white space, control characters, joined emoji, loose marks, and
    control strings, whole and broken.
    """
    letters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    runs = ["".join(letters[at : at + _LETTERS_AT_ONCE]) for at in range(0, len(letters), _LETTERS_AT_ONCE)][:num]
    generator = random.Random(seed)
    return [*runs, *(_mixed(generator, letters) for _ in range(num - len(runs)))]


def _mixed(generator: random.Random, letters: list[str]) -> str:
    return "".join(
        generator.choice(_PIECES if generator.random() < 0.85 else letters) for _ in range(generator.randint(1, 12))
    )
