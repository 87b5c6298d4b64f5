"""Constraints on words and letters: which to use or avoid, how often, where, in which order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from keylm.instructions.constraints.base import (
    NUMBER_WORDS,
    SENTENCE_INDEX,
    Constraint,
    ConstraintContext,
    Draft,
    join_words,
    split_sentences,
)
from keylm.instructions.constraints.violations import MENTIONS, add_sentence, match_case, mention, swap_word
from keylm.instructions.content_words import content_words
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class Keywords(Constraint):
    """Use given words; inside other words counts."""

    name = "keywords"
    conflicts_with = frozenset({"words", "length"})
    words: tuple[str, ...]
    num_sentences = 2

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one to three ordinary words, or sometimes up to six content words of the real answer's first sentence.

        For a real answer, the last of the ordinary words may be a term of two words, or all are words of the request.
        """
        # People ask for words that an answer has by itself and for words that have to be worked in. Where a later
        # sentence has them cannot be predicted, and a model would learn that words asked for may stay away.
        opening_words = content_words(context.sentences[0]) if context.is_real else []
        if opening_words and context.sampler.chance(0.15):
            count = context.sampler.number(1, min(6, len(opening_words)))
            return cls(tuple(context.sampler.rng.sample(opening_words, count)))
        words = context.sampler.words(context.sampler.number(1, 3))
        told = content_words(context.request)
        if context.is_real and told and context.sampler.chance(0.4):
            # No list of words has as many as people use, and a model would learn to write those of the list.
            return cls(tuple(context.sampler.rng.sample(told, min(len(words), len(told)))))
        if context.is_real and context.sampler.chance(0.3):
            words[-1] = f"{context.sampler.modifier()} {context.sampler.noun()}"
        return cls(tuple(words))

    @property
    def slots(self) -> dict[str, object]:
        """The words as a list within a sentence."""
        return {"words": f"the {'word' if len(self.words) == 1 else 'words'} {join_words(self.words)}"}

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the last sentence by one with the words. A real answer gets one with those its beginning lacks."""
        if not draft.context.is_real:
            draft.sentences[-1] = draft.context.sampler.choice(MENTIONS).format(join_words(self.words))
            return
        opening = draft.before + draft.sentences[0]
        if missing := tuple(word for word in self.words if not re.search(word, opening, re.IGNORECASE)):
            _insert_mentions(draft, join_words(tuple(map(draft.as_asked, missing))), 1)

    def check(self, answer: str) -> bool:
        """True if every word occurs, ignoring case."""
        # Without word boundaries, as in IFEval, so that a plural counts. Its forbidden words are whole words.
        return all(re.search(word, answer, re.IGNORECASE) for word in self.words)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace one of the words by another word."""
        return swap_word(sampler.choice(self.words), answer, sampler)


def _insert_mentions(draft: Draft, words: str, count: int) -> None:
    """Insert `count` sentences with the words behind the first sentence."""
    # Always there: at a random place, the sentence is never the likeliest continuation, and greedy answers lack it.
    mentions = (template.format(words) for template in draft.context.sampler.rng.sample(MENTIONS, count))
    draft.sentences[1:1] = mentions


@dataclass(frozen=True)
class _Times(Constraint):
    """Base of the constraints that count a word."""

    conflicts_with = frozenset({"words", "length"})
    word: str
    times: int

    @property
    def num_sentences(self) -> int:
        """One sentence about the topic, and one for each occurrence."""
        return 1 + self.times

    @property
    def slots(self) -> dict[str, object]:
        """The word, and the number as `3` and as `three times`."""
        often = "once" if self.times == 1 else "twice" if self.times == 2 else f"{NUMBER_WORDS[self.times]} times"
        return {"word": self.word, "times": self.times, "often": often}

    def occurrences(self, answer: str) -> int:
        """Number of occurrences, ignoring case; inside other words counts."""
        return len(re.findall(self.word, answer, re.IGNORECASE))

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace all sentences of an invented answer but the first by sentences with the word."""
        if not draft.context.is_real:
            mentions = draft.context.sampler.rng.sample(MENTIONS, self.num_sentences - 1)
            draft.sentences[1:] = [template.format(self.word) for template in mentions]


@dataclass(frozen=True)
class Frequency(_Times):
    """Use a word at least N times."""

    name = "keyword frequency"

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw any word and two or three times, or as often the real answer's most frequent word and up to five."""
        if not context.is_real or context.sampler.chance(0.5):
            return cls(context.sampler.word(), context.sampler.number(2, 3))
        return cls(context.known_words[0], context.sampler.number(2, 5))

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace sentences by some with the word; a real answer gets as many as its beginning lacks."""
        super().apply_to_draft(draft)
        text = draft.before + draft.sentences[0] if draft.context.is_real else draft.text
        _insert_mentions(draft, draft.as_asked(self.word), max(0, self.times - self.occurrences(text)))

    def check(self, answer: str) -> bool:
        """True if the word occurs often enough."""
        return self.occurrences(answer) >= self.times

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the word by another everywhere except in its first N - 1 occurrences."""
        return swap_word(self.word, answer, sampler, keep=self.times - 1)


@dataclass(frozen=True)
class FewerTimes(_Times):
    """Use a word fewer than N times."""

    name = "keyword at most"

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a word, and fewer than two or three times."""
        return cls(context.sample_words(1)[0], context.sampler.number(2, 3))

    @property
    def num_sentences(self) -> int:
        """One sentence about the topic, and one for each allowed occurrence."""
        return self.times

    def check(self, answer: str) -> bool:
        """True if the word does not occur too often."""
        return self.occurrences(answer) < self.times

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add sentences with the word until it occurs too often."""
        for template in sampler.rng.sample(MENTIONS, self.times - self.occurrences(answer)):
            answer = add_sentence(answer, template.format(self.word))
        return answer


@dataclass(frozen=True)
class ExactTimes(_Times):
    """Use a word exactly N times."""

    name = "keyword exactly"

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word and one to three times, or a word of the real answer and its count."""
        if not context.is_real:
            return cls(context.sampler.word(), context.sampler.number(1, 3))
        word = context.sample_words(1)[0]
        return cls(word, context.text.count(word))

    def check(self, answer: str) -> bool:
        """True if the word occurs exactly that often."""
        return self.occurrences(answer) == self.times

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add one more sentence with the word."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(self.word))


@dataclass(frozen=True)
class Forbidden(Constraint):
    """Do not use a word."""

    name = "forbidden word"
    word: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word."""
        return cls(context.sampler.word())

    def check(self, answer: str) -> bool:
        """True if the word does not occur as a whole word."""
        # Whole words, as in IFEval: to forbid `art` must not forbid `part`.
        return not re.search(rf"\b{self.word}\b", answer, re.IGNORECASE)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add a sentence with the word."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(self.word))


@dataclass(frozen=True)
class ForbiddenWords(Constraint):
    """Do not use any of two or three words."""

    name = "forbidden words"
    words: tuple[str, ...]

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw ordinary words."""
        return cls(tuple(context.sampler.words(context.sampler.number(2, 3))))

    @property
    def slots(self) -> dict[str, object]:
        """The words as a list within a sentence."""
        return {"words": join_words(self.words)}

    def check(self, answer: str) -> bool:
        """True if none of them occurs as a whole word."""
        return not re.search(rf"\b({'|'.join(self.words)})\b", answer, re.IGNORECASE)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add a sentence with one of the words."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(sampler.choice(self.words)))


@dataclass(frozen=True)
class WordIn(Constraint):
    """Use a word in the first or the last sentence."""

    name = "keyword in its place"
    conflicts_with = frozenset({"words", "length", "layout", "end"})
    applies_to_real = False
    word: str
    position: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word and the sentence."""
        return cls(context.sampler.word(), context.sampler.choice(tuple(SENTENCE_INDEX)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Append `with <word> in mind` to that sentence."""
        index = SENTENCE_INDEX[self.position]
        sentence = draft.sentences[index]
        draft.sentences[index] = f"{sentence[:-1]} with {self.word} in mind{sentence[-1]}"

    def check(self, answer: str) -> bool:
        """True if that sentence contains the whole word, ignoring case."""
        sentences = split_sentences(answer)
        if not sentences:
            return False
        return bool(re.search(rf"\b{self.word}\b", sentences[SENTENCE_INDEX[self.position]], re.IGNORECASE))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the word by another."""
        return swap_word(self.word, answer, sampler)


@dataclass(frozen=True)
class KeywordOrder(Constraint):
    """Use two words, the first before the second."""

    name = "keywords in order"
    conflicts_with = frozenset({"words", "length"})
    first: str
    second: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw two words; of a real answer, in the order of their first occurrences."""
        # An invented answer has no text yet: `find` gives -1 for both, and they stay in the order drawn.
        first, second = sorted(context.sample_words(2), key=context.text.find)
        return cls(first, second)

    def apply_to_draft(self, draft: Draft) -> None:
        """Write one sentence for each word."""
        if not draft.context.is_real:
            mentions = draft.context.sampler.rng.sample(MENTIONS, 2)
            draft.sentences[1:] = [mentions[0].format(self.first), mentions[1].format(self.second)]

    def check(self, answer: str) -> bool:
        """True if both occur as whole words, and the first occurrence of the first word comes first."""
        first, second = (re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in (self.first, self.second))
        return first is not None and second is not None and first.start() < second.start()

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Swap the two words."""
        # In one pass: of two replacements in a row, the second would undo the first.
        swaps = {self.first: self.second, self.second: self.first}
        either = rf"\b({self.first}|{self.second})\b"
        swapped = re.sub(either, lambda match: swaps[match[0].lower()], answer, flags=re.IGNORECASE)
        return swapped.upper() if answer.isupper() else swapped


@dataclass(frozen=True)
class KeySentence(Constraint):
    """Use a given sentence word for word."""

    name = "exact sentence"
    conflicts_with = frozenset({"words", "length"})
    sentence: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a sentence about an ordinary word, or one of the real answer."""
        return cls(context.sampler.choice(context.sentences) if context.is_real else mention(context.sampler))

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the sentence in place of the second or the third."""
        if not draft.context.is_real:
            draft.sentences[draft.context.sampler.number(1, 2)] = self.sentence

    def check(self, answer: str) -> bool:
        """True if the sentence occurs, ignoring case."""
        # IFEval minds case. Here another constraint may ask for capitals throughout.
        return self.sentence.lower() in answer.lower()

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the longest word of the sentence by another."""
        longest = max(re.findall(r"\w+", self.sentence), key=len)
        changed = self.sentence.replace(longest, sampler.word(), 1)
        return match_case(re.sub(re.escape(self.sentence), lambda _: changed, answer, flags=re.IGNORECASE), answer)


@dataclass(frozen=True)
class _Letter(Constraint):
    """Base of the constraints that count a letter."""

    conflicts_with = frozenset({"letters", "length"})
    letter: str

    def occurrences(self, answer: str) -> int:
        """Number of occurrences, ignoring case."""
        return answer.lower().count(self.letter)


@dataclass(frozen=True)
class LetterAtLeast(_Letter):
    """Use a letter at least N times."""

    name = "letter at least"
    times: int
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a fairly common letter and three to six times, or half as often as in the real answer, or more."""
        letter = context.sampler.choice("bcdfghkmpvwy")
        if not context.is_real:
            return cls(letter, context.sampler.number(3, 6))
        occurrences = context.text.lower().count(letter)
        return cls(letter, max(1, context.sampler.number(occurrences // 2, occurrences)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the last sentence by one with words that contain the letter."""
        if not draft.context.is_real:
            words = draft.context.sampler.words_with(self.letter, self.times)
            draft.sentences[-1] = draft.context.sampler.choice(MENTIONS).format(join_words(words))

    def check(self, answer: str) -> bool:
        """True if the letter occurs often enough."""
        return self.occurrences(answer) >= self.times

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace words that contain the letter from its N-th occurrence on."""
        occurrences = 0

        def swap(match: re.Match[str]) -> str:
            nonlocal occurrences
            occurrences += self.occurrences(match[0])
            return match[0] if occurrences < self.times else match_case(sampler.word_without(self.letter), answer)

        return re.sub(r"[A-Za-z]+", swap, answer)


@dataclass(frozen=True)
class LetterFewer(_Letter):
    """Use a letter fewer than N times."""

    name = "letter at most"
    times: int
    num_sentences = 2

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a rare letter and three to eight times, or one to four more than the real answer has."""
        # No draft is changed for this one: the letter has to be rare enough for most answers to pass as they are.
        letter = context.sampler.choice("bfgjkpqvwxyz")
        if not context.is_real:
            return cls(letter, context.sampler.number(3, 8))
        return cls(letter, context.text.lower().count(letter) + context.sampler.number(1, 4))

    def check(self, answer: str) -> bool:
        """True if the letter occurs less often than that."""
        return self.occurrences(answer) < self.times

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add a sentence with words that contain the letter."""
        words = sampler.words_with(self.letter, self.times - self.occurrences(answer))
        return add_sentence(answer, sampler.choice(MENTIONS).format(join_words(words)))


@dataclass(frozen=True)
class NoLetter(_Letter):
    """Do not use a letter (a lipogram)."""

    name = "without a letter"
    # Nothing makes the draft fit; answers are drawn until one lacks the letter, and a short one does sooner.
    num_sentences = 1

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a rare letter."""
        return cls(context.sampler.choice("jqxzv"))

    def check(self, answer: str) -> bool:
        """True if the letter does not occur."""
        return not self.occurrences(answer)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add a sentence with a word that contains the letter."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(*sampler.words_with(self.letter, 1)))
