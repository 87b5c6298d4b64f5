"""Kinds about words and letters: to use, to leave out, how often, in which order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from keylm.instructions.constraints.base import (
    NUMBERS,
    PLACES,
    Constraint,
    ConstraintContext,
    Draft,
    listed,
    split_sentences,
)
from keylm.instructions.constraints.violations import MENTIONS, add_sentence, match_case, mention, swap_word
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class Keywords(Constraint):
    """Use given words, inside other words or not."""

    kind = "keywords"
    parts = frozenset({"words", "length"})
    words: tuple[str, ...]
    num_sentences = 2

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One to three ordinary words; of a real answer, up to six of its own."""
        most = min(6, len(brief.known_words)) if brief.is_real else 3
        return cls(tuple(brief.words(brief.sampler.number(1, most))))

    @property
    def slots(self) -> dict[str, object]:
        """The words as a list in a sentence."""
        return {"words": f"the {'word' if len(self.words) == 1 else 'words'} {listed(self.words)}"}

    def shape(self, draft: Draft) -> None:
        """Give the last sentence to the words, which a real answer has already."""
        if not draft.brief.is_real:
            draft.sentences[-1] = draft.brief.sampler.choice(MENTIONS).format(listed(self.words))

    def check(self, answer: str) -> bool:
        """Whether every word occurs, in small or capital letters."""
        return all(re.search(word, answer, re.IGNORECASE) for word in self.words)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in the place of one of them."""
        return swap_word(sampler.choice(self.words), answer, sampler)


@dataclass(frozen=True)
class _Times(Constraint):
    """Base of the kinds that count a word."""

    parts = frozenset({"words", "length"})
    word: str
    times: int

    @property
    def num_sentences(self) -> int:
        """A sentence about the topic and one for each time."""
        return 1 + self.times

    @property
    def slots(self) -> dict[str, object]:
        """The word, and how often as a digit and in words."""
        often = "once" if self.times == 1 else "twice" if self.times == 2 else f"{NUMBERS[self.times]} times"
        return {"word": self.word, "times": self.times, "often": often}

    def occurrences(self, answer: str) -> int:
        """How often the word occurs, in small or capital letters, inside other words or not."""
        return len(re.findall(self.word, answer, re.IGNORECASE))

    def shape(self, draft: Draft) -> None:
        """Give every sentence of an invented answer but the first to the word."""
        if not draft.brief.is_real:
            mentions = draft.brief.sampler.rng.sample(MENTIONS, self.num_sentences - 1)
            draft.sentences[1:] = [each.format(self.word) for each in mentions]


@dataclass(frozen=True)
class Frequency(_Times):
    """Use a word at least so many times."""

    kind = "keyword frequency"

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word, two or three times; of a real answer, a word that it says so often."""
        if not brief.is_real:
            return cls(brief.sampler.word(), brief.sampler.number(2, 3))
        word = brief.known_words[0]
        return cls(word, max(2, min(5, brief.text.count(word))))

    def check(self, answer: str) -> bool:
        """Whether the word occurs often enough."""
        return self.occurrences(answer) >= self.times

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in its place, but for the first times."""
        return swap_word(self.word, answer, sampler, keep=self.times - 1)


@dataclass(frozen=True)
class FewerTimes(_Times):
    """Use a word fewer than so many times."""

    kind = "keyword at most"

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word, fewer than two or three times."""
        return cls(brief.words(1)[0], brief.sampler.number(2, 3))

    @property
    def num_sentences(self) -> int:
        """A sentence about the topic and one for each time that is allowed."""
        return self.times

    def check(self, answer: str) -> bool:
        """Whether the word does not occur too often."""
        return self.occurrences(answer) < self.times

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The word until it is too often."""
        for each in sampler.rng.sample(MENTIONS, self.times - self.occurrences(answer)):
            answer = add_sentence(answer, each.format(self.word))
        return answer


@dataclass(frozen=True)
class ExactTimes(_Times):
    """Use a word exactly so many times."""

    kind = "keyword exactly"

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word, once to three times; of a real answer, as often as it says the word."""
        if not brief.is_real:
            return cls(brief.sampler.word(), brief.sampler.number(1, 3))
        word = brief.words(1)[0]
        return cls(word, brief.text.count(word))

    def check(self, answer: str) -> bool:
        """Whether the word occurs exactly so often."""
        return self.occurrences(answer) == self.times

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Once too often."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(self.word))


@dataclass(frozen=True)
class Forbidden(Constraint):
    """Leave a word out."""

    kind = "forbidden word"
    word: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word."""
        return cls(brief.sampler.word())

    def check(self, answer: str) -> bool:
        """Whether the whole word does not occur."""
        return not re.search(rf"\b{self.word}\b", answer, re.IGNORECASE)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One sentence with the word."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(self.word))


@dataclass(frozen=True)
class ForbiddenWords(Constraint):
    """Leave two or three words out."""

    kind = "forbidden words"
    words: tuple[str, ...]

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Ordinary words."""
        return cls(tuple(brief.sampler.words(brief.sampler.number(2, 3))))

    @property
    def slots(self) -> dict[str, object]:
        """The words as a list in a sentence."""
        return {"words": listed(self.words)}

    def check(self, answer: str) -> bool:
        """Whether none of the whole words occurs."""
        return not re.search(rf"\b({'|'.join(self.words)})\b", answer, re.IGNORECASE)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One sentence with one of the words."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(sampler.choice(self.words)))


@dataclass(frozen=True)
class WordIn(Constraint):
    """Use a word in the first or in the last sentence."""

    kind = "keyword in its place"
    parts = frozenset({"words", "length", "layout", "end"})
    suits_real = False
    word: str
    place: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word, and where."""
        return cls(brief.sampler.word(), brief.sampler.choice(tuple(PLACES)))

    def shape(self, draft: Draft) -> None:
        """A few words more in that sentence."""
        index = PLACES[self.place]
        sentence = draft.sentences[index]
        draft.sentences[index] = f"{sentence[:-1]} with {self.word} in mind{sentence[-1]}"

    def check(self, answer: str) -> bool:
        """Whether the whole word is in that sentence, in small or capital letters."""
        sentences = split_sentences(answer)
        return bool(sentences) and bool(re.search(rf"\b{self.word}\b", sentences[PLACES[self.place]], re.IGNORECASE))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in its place."""
        return swap_word(self.word, answer, sampler)


@dataclass(frozen=True)
class KeywordOrder(Constraint):
    """Use two words, one before the other."""

    kind = "keywords in order"
    parts = frozenset({"words", "length"})
    first: str
    second: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Two words; of a real answer, in the order in which it says them."""
        first, second = sorted(brief.words(2), key=brief.text.find)
        return cls(first, second)

    def shape(self, draft: Draft) -> None:
        """A sentence for each."""
        if not draft.brief.is_real:
            mentions = draft.brief.sampler.rng.sample(MENTIONS, 2)
            draft.sentences[1:] = [mentions[0].format(self.first), mentions[1].format(self.second)]

    def check(self, answer: str) -> bool:
        """Whether both whole words occur, and the first of the first before the first of the second."""
        places = [re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in (self.first, self.second)]
        before, after = (match.start() if match else None for match in places)
        return before is not None and after is not None and before < after

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """The two change places."""
        other = {self.first: self.second, self.second: self.first}
        either = rf"\b({self.first}|{self.second})\b"
        swapped = re.sub(either, lambda match: other[match[0].lower()], answer, flags=re.IGNORECASE)
        return swapped.upper() if answer.isupper() else swapped


@dataclass(frozen=True)
class KeySentence(Constraint):
    """Use a given sentence, word for word."""

    kind = "exact sentence"
    parts = frozenset({"words", "length"})
    sentence: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A sentence about an ordinary word, or one of the real answer's."""
        return cls(brief.sampler.choice(brief.sentences) if brief.is_real else mention(brief.sampler))

    def shape(self, draft: Draft) -> None:
        """Put it somewhere behind the first sentence."""
        if not draft.brief.is_real:
            draft.sentences[draft.brief.sampler.number(1, 2)] = self.sentence

    def check(self, answer: str) -> bool:
        """Whether the sentence occurs, in small or capital letters."""
        return self.sentence.lower() in answer.lower()

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in the place of one of its longer words."""
        longest = max(re.findall(r"\w+", self.sentence), key=len)
        other = self.sentence.replace(longest, sampler.word(), 1)
        spoiled = re.sub(re.escape(self.sentence), lambda _: other, answer, flags=re.IGNORECASE)
        return spoiled.upper() if answer.isupper() else spoiled.lower() if answer.islower() else spoiled


@dataclass(frozen=True)
class _Letter(Constraint):
    """Base of the kinds that count a letter."""

    parts = frozenset({"letters", "length"})
    letter: str

    def occurrences(self, answer: str) -> int:
        """How often the letter occurs, small or capital."""
        return answer.lower().count(self.letter)


@dataclass(frozen=True)
class LetterAtLeast(_Letter):
    """Use a letter at least so many times."""

    kind = "letter at least"
    times: int
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A letter that is not too frequent, three to six times; of a real answer, nearly as often as it has it."""
        letter = brief.sampler.choice("bcdfghkmpvwy")
        if not brief.is_real:
            return cls(letter, brief.sampler.number(3, 6))
        return cls(letter, max(1, brief.text.lower().count(letter) - brief.sampler.number(0, 3)))

    def shape(self, draft: Draft) -> None:
        """Give the last sentence to words with the letter."""
        if not draft.brief.is_real:
            words = draft.brief.sampler.words_with(self.letter, self.times)
            draft.sentences[-1] = draft.brief.sampler.choice(MENTIONS).format(listed(words))

    def check(self, answer: str) -> bool:
        """Whether the letter occurs often enough."""
        return self.occurrences(answer) >= self.times

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Other words in the place of those with the letter, but for the first."""
        kept = 0

        def swap(match: re.Match[str]) -> str:
            nonlocal kept
            kept += self.occurrences(match[0])
            return match[0] if kept < self.times else match_case(sampler.word_without(self.letter), answer)

        return re.sub(r"[A-Za-z]+", swap, answer)


@dataclass(frozen=True)
class LetterFewer(_Letter):
    """Use a letter fewer than so many times."""

    kind = "letter at most"
    times: int
    num_sentences = 2

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A letter that is rare, fewer than three to eight times; of a real answer, as many as it has or a few more."""
        letter = brief.sampler.choice("bfgjkpqvwxyz")
        if not brief.is_real:
            return cls(letter, brief.sampler.number(3, 8))
        return cls(letter, brief.text.lower().count(letter) + brief.sampler.number(1, 4))

    def check(self, answer: str) -> bool:
        """Whether the letter is rare enough."""
        return self.occurrences(answer) < self.times

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Words with the letter, until they are too many."""
        words = sampler.words_with(self.letter, self.times - self.occurrences(answer))
        return add_sentence(answer, sampler.choice(MENTIONS).format(listed(words)))


@dataclass(frozen=True)
class NoLetter(_Letter):
    """Leave a letter out: a lipogram."""

    kind = "without a letter"
    num_sentences = 1

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A rare letter."""
        return cls(brief.sampler.choice("jqxzv"))

    def check(self, answer: str) -> bool:
        """Whether the letter does not occur."""
        return not self.occurrences(answer)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One word with the letter."""
        return add_sentence(answer, sampler.choice(MENTIONS).format(*sampler.words_with(self.letter, 1)))
