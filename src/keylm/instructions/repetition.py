"""Repetition documents: a few random words repeated several times, to teach copying early.

Natural text rewards copying so rarely that a small model learns it late or, in a short run, not at all. In these
documents most tokens can only be predicted from earlier ones. Half a million tokens are enough (`docs/log.md`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from string import ascii_lowercase

from keylm.common.documents import Document
from keylm.instructions.sampler import Sampler
from keylm.instructions.word_lists import is_held_out_word

_WORD = re.compile(r"\w{2,20}")
_MAX_WORDS = 20_000
"""Different words taken from other sources: about the vocabulary of a reader."""
_FORMS: Mapping[str, Callable[[list[str]], str]] = {
    "quoted": lambda words: ", ".join(f'"{word}"' for word in words),
    "in single quotation marks": lambda words: " and ".join(f"'{word}'" for word in words),
    "listed": " and ".join,
    "one by one": ". ".join,
    "in a sentence": lambda words: f"It goes well with {' and '.join(words)}.",
    "capitalized": lambda words: " ".join(word.capitalize() for word in words),
    "in capitals": lambda words: " ".join(words).upper(),
    "emphasized": lambda words: " ".join(f"*{word}*" for word in words),
}
"""Ways to write the same words again."""
_SEPARATORS = ("\n", "\n", "\n\n", ". ", ", ", " - ", " | ", "\n- ")


def generate_repetition(num_documents: int, seed: int, source_words: Sequence[str] = ()) -> Iterator[str]:
    """Generate documents of about 100 tokens; document `i` is a pure function of the seed, `i` and `source_words`.

    Args:
        num_documents: Number of documents.
        seed: Seed of the run.
        source_words: Words of other sources to use besides the package's own lists, as `words_of` collects them.
    """
    for index in range(num_documents):
        # The source was once called `drills`. The string stays, because another would change every document.
        yield repetition_document(Random(f"drill:{seed}:{index}"), source_words)


def words_of(documents: Iterable[Document]) -> list[str]:
    """The first 20,000 distinct words of `documents`, as spelled there, without those held out for evaluation."""
    words = (word for document in documents for text in document.contents for word in _WORD.findall(text))
    # A dict keeps the order of the text; that of a set of strings differs from process to process.
    distinct: dict[str, None] = {}
    for word in words:
        if not is_held_out_word(word):
            distinct[word] = None
        # No more of the sources is read than is needed.
        if len(distinct) == _MAX_WORDS:
            break
    return list(distinct)


def repetition_document(rng: Random, source_words: Sequence[str]) -> str:
    """One to eight words, of `source_words` or the package's own lists, repeated five to nine times.

    Of the documents with source words, half are eight to thirty words, repeated one to three times, and a quarter have
    the words in another form each time: in quotation marks, as a list, in capitals.
    """
    sampler = Sampler(rng)
    words: list[str] = []
    # A sentence of the request, to be repeated in the answer, is that long.
    is_long = bool(source_words) and sampler.chance(0.5)
    for _ in range(rng.randint(8, 30) if is_long else rng.randint(1, 8)):
        if source_words and sampler.chance(0.6):
            words.append(sampler.choice(source_words))
        else:
            # Random letters and invented names occur in no other text: only copying predicts them.
            letters = "".join(rng.choices(ascii_lowercase, k=sampler.number(2, 6)))
            words.append(sampler.choice((sampler.word(), sampler.noun(), sampler.modifier(), sampler.name(), letters)))
    if source_words and not is_long and sampler.chance(0.5):
        # A word has other tokens behind a quotation mark or in capitals, which a model has to learn are the same word.
        return "\n".join(_FORMS[form](words) for form in rng.choices(list(_FORMS), k=rng.randint(5, 9)))
    phrase = " ".join(words)
    separator, first = rng.choice(_SEPARATORS), rng.choice((phrase, phrase.capitalize()))
    return separator.join([first] * (rng.randint(2, 4) if is_long else rng.randint(5, 9)))
