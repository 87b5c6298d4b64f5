"""What datatrove's blocks are given throughout: a tokenizer for words and sentences, and a hash.

datatrove's own English tokenizer is spaCy's, which is slower than encoding; this one keeps words and punctuation marks
apart in the same way, by two regular expressions.
"""

from __future__ import annotations

import re

from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

HASHES = HashConfig(hash_fc="sha1")
"""64 bits of SHA-1: datatrove's default, xxhash, takes no strings any more since its version 4."""

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"'”’)\]]*(?=\s)|\Z)", re.DOTALL)


class Words(WordTokenizer):  # type: ignore[misc]
    """To be given to datatrove's blocks as their `language`."""

    def __init__(self) -> None:
        super().__init__("en")

    def word_tokenize(self, text: str) -> list[str]:
        """Words and punctuation marks, in order."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences, without the white space between them."""
        return _SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Start and stop of every sentence."""
        return [match.span() for match in _SENTENCE.finditer(text)]


ENGLISH = Words()
"""The one tokenizer of a process: datatrove remembers what it split by tokenizer."""
