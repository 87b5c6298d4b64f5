"""Kinds about length: words, sentences and characters; exactly, at least, at most, around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from keylm.instructions.constraints.base import (
    NUMBERS,
    Constraint,
    ConstraintContext,
    Counted,
    Draft,
    count_sentences,
    count_words,
    split_sentences,
)
from keylm.instructions.constraints.violations import add_sentence, add_words, drop_sentence, mention
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class _NumSentences(Counted):
    """Base of the kinds that count sentences."""

    parts = frozenset({"length"})
    unit = "sentence"

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Of a real answer, no more sentences than it has."""
        return cls(brief.number(*cls.counts))

    @property
    def num_sentences(self) -> int:
        """The number asked for."""
        return self.count


@dataclass(frozen=True)
class Sentences(_NumSentences):
    """Write an exact number of sentences."""

    kind = "number of sentences"
    counts = (1, 4)

    def shape(self, draft: Draft) -> None:
        """A real answer stops where it is long enough."""
        del draft.sentences[self.count :]

    def check(self, answer: str) -> bool:
        """Whether the number of sentences is exact."""
        return count_sentences(answer) == self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One sentence too many or too few."""
        return sampler.choice((add_sentence(answer, mention(sampler)), drop_sentence(answer, sampler)))


@dataclass(frozen=True)
class MinSentences(_NumSentences):
    """Write at least so many sentences."""

    kind = "at least N sentences"
    counts = (2, 4)

    def check(self, answer: str) -> bool:
        """Whether there are enough sentences."""
        return count_sentences(answer) >= self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences go until there are too few."""
        for _ in range(count_sentences(answer) - self.count + 1):
            answer = drop_sentence(answer, sampler)
        return answer


@dataclass(frozen=True)
class FewerSentences(_NumSentences):
    """Write fewer than so many sentences."""

    kind = "fewer than N sentences"
    counts = (3, 5)

    @property
    def num_sentences(self) -> int:
        """One less than the limit."""
        return self.count - 1

    def shape(self, draft: Draft) -> None:
        """A real answer stops before the limit."""
        del draft.sentences[self.count - 1 :]

    def check(self, answer: str) -> bool:
        """Whether there are fewer sentences."""
        return count_sentences(answer) < self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences until the limit is reached."""
        for _ in range(self.count - count_sentences(answer)):
            answer = add_sentence(answer, mention(sampler))
        return answer


@dataclass(frozen=True)
class MaxWords(Constraint):
    """Write at most so many words."""

    kind = "at most N words"
    parts = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Thirty to sixty words; of a real answer, hardly more than it has."""
        if not brief.is_real:
            return cls(brief.sampler.choice(range(30, 61, 5)))
        return cls(_rounded_up(count_words(brief.text), 5) + brief.sampler.choice((0, 5, 10)))

    @property
    def num_sentences(self) -> int:
        """One sentence, or two where there is room."""
        return 1 if self.limit < 45 else 2

    def check(self, answer: str) -> bool:
        """Whether the words are within the limit."""
        return count_words(answer) <= self.limit

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Words until there are too many."""
        return add_words(answer, self.limit - count_words(answer) + 1, sampler)


@dataclass(frozen=True)
class MinWords(Constraint):
    """Write at least so many words."""

    kind = "at least N words"
    parts = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Ten to thirty words; of a real answer, hardly fewer than it has."""
        if not brief.is_real:
            return cls(brief.sampler.choice(range(10, 31, 5)))
        return cls(max(5, _rounded_up(count_words(brief.text), 5) - brief.sampler.choice((5, 10, 15))))

    @property
    def num_sentences(self) -> int:
        """Six words make a sentence at least."""
        return 1 + self.limit // 6

    def check(self, answer: str) -> bool:
        """Whether there are enough words."""
        return count_words(answer) >= self.limit

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences go until there are too few words."""
        while self.check(answer) and (shorter := drop_sentence(answer, sampler)) != answer:
            answer = shorter
        return answer


@dataclass(frozen=True)
class AroundWords(Constraint):
    """Write around so many words: up to a fifth more or less."""

    kind = "around N words"
    parts = frozenset({"length"})
    count: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Twenty or thirty words; of a real answer, about as many as it has."""
        return cls(_rounded_up(count_words(brief.text), 10) if brief.is_real else brief.sampler.choice((20, 25, 30)))

    @property
    def num_sentences(self) -> int:
        """Sentences to choose from."""
        return 6

    def shape(self, draft: Draft) -> None:
        """As many sentences as come nearest."""
        sizes = [count_words(" ".join(draft.sentences[:end])) for end in range(1, len(draft.sentences) + 1)]
        nearest = min(range(len(sizes)), key=lambda index: abs(sizes[index] - self.count))
        del draft.sentences[nearest + 1 :]

    def check(self, answer: str) -> bool:
        """Whether the number is near enough."""
        return abs(count_words(answer) - self.count) <= self.count / 5

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Words until there are too many."""
        return add_words(answer, self.count + self.count // 5 - count_words(answer) + 1, sampler)


@dataclass(frozen=True)
class WordRange(Constraint):
    """Write between so many and so many words."""

    kind = "between N and M words"
    parts = frozenset({"length"})
    low: int
    high: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Ten to thirty words, or from half of the limit to the limit."""
        words = count_words(brief.text) if brief.is_real else brief.sampler.number(25, 45)
        high = _rounded_up(words, 5)
        return cls(high // 2, high)

    @property
    def num_sentences(self) -> int:
        """Sentences to choose from."""
        return 6

    def shape(self, draft: Draft) -> None:
        """As many sentences as the range holds."""
        while len(draft.sentences) > 1 and count_words(draft.text) > self.high:
            draft.sentences.pop()

    def check(self, answer: str) -> bool:
        """Whether the number is in the range."""
        return self.low <= count_words(answer) <= self.high

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Words until there are too many."""
        return add_words(answer, self.high - count_words(answer) + 1, sampler)


@dataclass(frozen=True)
class ShortSentences(Constraint):
    """Write no sentence of more than so many words."""

    kind = "short sentences"
    parts = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Ten to fifteen words; of a real answer, as many as its longest sentence."""
        longest = max(map(count_words, brief.sentences), default=0)
        return cls(max(longest, brief.sampler.number(10, 15)))

    def shape(self, draft: Draft) -> None:
        """Long sentences go."""
        draft.sentences = [each for each in draft.sentences if count_words(each) <= self.limit] or draft.sentences[:1]

    def check(self, answer: str) -> bool:
        """Whether every sentence is short enough."""
        return all(count_words(each) <= self.limit for each in split_sentences(answer))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One sentence that is too long."""
        return add_sentence(answer, f"It makes me think of {' and '.join(sampler.words(self.limit // 2))}.")


@dataclass(frozen=True)
class SentenceRange(Constraint):
    """Write between so many sentences and so many."""

    kind = "between N and M sentences"
    parts = frozenset({"length"})
    low: int
    high: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """From one to three sentences up to one or two more; of a real answer, from no more than it has."""
        low = brief.sampler.number(1, min(3, len(brief.sentences)) if brief.is_real else 3)
        return cls(low, low + brief.sampler.number(1, 2))

    @property
    def num_sentences(self) -> int:
        """Between the two, or the greater of two neighbours."""
        return (self.low + self.high + 1) // 2

    @property
    def slots(self) -> dict[str, object]:
        """The numbers in words."""
        return {"low": NUMBERS[self.low], "high": NUMBERS[self.high]}

    def shape(self, draft: Draft) -> None:
        """A real answer stops at the greater number."""
        del draft.sentences[self.high :]

    def check(self, answer: str) -> bool:
        """Whether the number of sentences is one of those."""
        return self.low <= count_sentences(answer) <= self.high

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences until there are too many."""
        for _ in range(self.high - count_sentences(answer) + 1):
            answer = add_sentence(answer, mention(sampler))
        return answer


@dataclass(frozen=True)
class MinCharacters(Constraint):
    """Write at least so many characters."""

    kind = "at least N characters"
    parts = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A hundred to two hundred; of a real answer, nearly as many as it has."""
        if not brief.is_real:
            return cls(brief.sampler.choice(range(100, 201, 20)))
        return cls(max(10, len(brief.text) // 10 * 10 - brief.sampler.choice((0, 10, 50))))

    @property
    def num_sentences(self) -> int:
        """Sentences have 30 characters and more."""
        return self.limit // 30

    def check(self, answer: str) -> bool:
        """Whether there are enough, white space around the answer aside."""
        return len(answer.strip()) >= self.limit

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences go until there are too few."""
        while self.check(answer) and (shorter := drop_sentence(answer, sampler)) != answer:
            answer = shorter
        return answer


@dataclass(frozen=True)
class MaxCharacters(Constraint):
    """Write at most so many characters."""

    kind = "at most N characters"
    parts = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One or two hundred characters; of a real answer, hardly more than it has."""
        return cls(_rounded_up(len(brief.text), 50) if brief.is_real else brief.sampler.choice((100, 140, 160, 200)))

    @property
    def num_sentences(self) -> int:
        """One sentence, or two where there is room."""
        return 1 if self.limit < 160 else 2

    def check(self, answer: str) -> bool:
        """Whether the characters, spaces included, are within the limit."""
        return len(answer.strip()) <= self.limit

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Sentences until there are too many."""
        return add_words(answer, (self.limit - len(answer)) // 4 + 2, sampler)


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step
