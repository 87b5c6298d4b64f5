"""Texts on which two tokenizers disagree if they differ at all."""

from __future__ import annotations

import random
import unicodedata

from keylm.tokenizer.tokenizer import CONTROL_TOKENS

_CODE_POINTS_PER_TEXT = 256

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
    """Make `num` texts: first every assigned code point, in order, then random sequences of difficult pieces.

    The pieces are letters of many scripts, digits, whitespace, control characters, emoji with joiners, combining
    marks, and complete and broken control tokens.
    """
    # Without surrogates (Cs), unassigned (Cn) and private-use (Co) code points.
    assigned = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
    starts = range(0, len(assigned), _CODE_POINTS_PER_TEXT)
    texts = ["".join(assigned[start : start + _CODE_POINTS_PER_TEXT]) for start in starts][:num]
    generator = random.Random(seed)
    while len(texts) < num:
        length = generator.randint(1, 12)
        pieces = (generator.choice(_PIECES if generator.random() < 0.85 else assigned) for _ in range(length))
        texts.append("".join(pieces))
    return texts
