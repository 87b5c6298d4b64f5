"""Constraints on length: a quantity (sentences, words, characters) and how much of it the answer may have.

A concrete constraint is a row of a table: a quantity, a relation and the counts to ask for.

|            | exactly     | at least        | at most / fewer than | between         | around        |
|------------|-------------|-----------------|----------------------|-----------------|---------------|
| sentences  | `Sentences` | `MinSentences`  | `FewerSentences`     | `SentenceRange` |               |
| words      |             | `MinWords`      | `MaxWords`           | `WordRange`     | `AroundWords` |
| characters |             | `MinCharacters` | `MaxCharacters`      |                 |               |

`ShortSentences` limits each sentence instead of the answer. To add a row, derive from a relation, set `quantity` and
`counts`, and write its phrasings in `length.yaml`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import (
    NUMBER_WORDS,
    Constraint,
    ConstraintContext,
    Draft,
    count_sentences,
    count_slots,
    count_words,
    split_sentences,
)
from keylm.instructions.constraints.violations import add_mentions, add_sentence, drop_sentence
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class Quantity:
    """Something that an answer has a number of."""

    measure: Callable[[str], int]
    """How much of it a text has."""
    mentions_for: Callable[[int], int]
    """How many sentences of `violations.MENTIONS` add at least so much of it."""
    unit: str = ""
    """Its singular in phrasings that spell out small numbers ("two sentences"); empty where they use digits."""


SENTENCES = Quantity(count_sentences, mentions_for=lambda excess: excess, unit="sentence")
# A mention has at least four words, so one for every three words is always enough.
WORDS = Quantity(count_words, mentions_for=lambda excess: math.ceil(excess / 3))
# A mention has at least 15 characters, so one for every twelve is always enough.
CHARACTERS = Quantity(
    lambda text: len(text.strip()), mentions_for=lambda excess: math.ceil(((excess - 1) // 4 + 2) / 3)
)


@dataclass(frozen=True)
class _Length(Constraint):
    """Base of the relations: the answer has `bounds[0]` to `bounds[1]` of a quantity, both included."""

    conflicts_with = frozenset({"length"})
    asks_for_length = True
    quantity: ClassVar[Quantity]
    counts: ClassVar[Sequence[int]]
    """What to ask for where the answer is invented."""
    is_trimmed: ClassVar[bool] = False
    """Whether sentences beyond the upper bound are dropped from a draft."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest amount that satisfies the constraint."""

    def most_to_keep(self, _draft: Draft) -> float:
        """How much of the quantity stays of a draft: as much as the upper bound allows, if it is trimmed."""
        return self.bounds[1] if self.is_trimmed else math.inf

    def apply_to_draft(self, draft: Draft) -> None:
        """Drop the last sentences of a draft that is too long."""
        # One sentence always stays: an empty answer follows nothing.
        while len(draft.sentences) > 1 and self.quantity.measure(draft.text) > self.most_to_keep(draft):
            draft.sentences.pop()

    def check(self, answer: str) -> bool:
        """True if the amount lies within the bounds."""
        low, high = self.bounds
        return low <= self.quantity.measure(answer) <= high

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Lengthen the answer beyond the upper bound, or shorten it below the lower one where there is no upper one."""
        high = self.bounds[1]
        if math.isfinite(high):
            excess = int(high) - self.quantity.measure(answer) + 1
            return add_mentions(answer, self.quantity.mentions_for(excess), sampler)
        # `drop_sentence` returns the answer unchanged when no line has a sentence to spare.
        while self.check(answer) and (shorter := drop_sentence(answer, sampler)) != answer:
            answer = shorter
        return answer


@dataclass(frozen=True)
class _OneCount(_Length):
    """Base of the relations that compare with one number."""

    count: int

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one of `counts`, or a count that fits the real answer."""
        if context.is_real:
            return cls(cls.count_for_real(context))
        return cls(context.sampler.choice(cls.counts))

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """A number of sentences that the real answer has; constraints on words and characters override this."""
        return context.sample_count(cls.counts[0], cls.counts[-1])

    @property
    def num_sentences(self) -> int:
        """As many sentences as are asked for; constraints on words and characters override this."""
        return self.count

    @property
    def slots(self) -> dict[str, object]:
        """The count, spelled out with its unit where the quantity has one."""
        return {"count": self.count, **(count_slots(self.count, self.quantity.unit) if self.quantity.unit else {})}


class _Exactly(_OneCount):
    is_trimmed = True

    @property
    def bounds(self) -> tuple[float, float]:
        return self.count, self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add or drop one sentence."""
        # The near miss: a count that is far off would be too easy to tell apart.
        return sampler.choice((add_mentions(answer, 1, sampler), drop_sentence(answer, sampler)))


class _AtLeast(_OneCount):
    @property
    def bounds(self) -> tuple[float, float]:
        return self.count, math.inf


class _AtMost(_OneCount):
    @property
    def bounds(self) -> tuple[float, float]:
        return 0, self.count


class _FewerThan(_OneCount):
    is_trimmed = True

    @property
    def bounds(self) -> tuple[float, float]:
        return 0, self.count - 1

    @property
    def num_sentences(self) -> int:
        return self.count - 1


class _Around(_OneCount):
    """Up to a fifth more or less."""

    @property
    def bounds(self) -> tuple[float, float]:
        return self.count - self.count // 5, self.count + self.count // 5

    def apply_to_draft(self, draft: Draft) -> None:
        """Keep as many of the first sentences as come nearest to the count."""
        ends = range(1, len(draft.sentences) + 1)
        nearest = min(ends, key=lambda end: abs(self.quantity.measure(" ".join(draft.sentences[:end])) - self.count))
        del draft.sentences[nearest:]


@dataclass(frozen=True)
class _Between(_Length):
    is_trimmed = True
    low: int
    high: int

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def num_sentences(self) -> int:
        """The middle of the range, rounded up."""
        return (self.low + self.high + 1) // 2


class Sentences(_Exactly):
    """Write exactly N sentences."""

    name = "number of sentences"
    quantity, counts = SENTENCES, range(1, 5)


class MinSentences(_AtLeast):
    """Write at least N sentences."""

    name = "at least N sentences"
    quantity, counts = SENTENCES, range(2, 5)
    # A small model counts badly. That a lower bound means a long answer, and an upper one a short one, it learns.
    min_real_sentences = 8

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """Any number of sentences that the answer has, up to ten."""
        return context.sampler.number(cls.counts[0], min(len(context.sentences), len(NUMBER_WORDS) - 1))


class FewerSentences(_FewerThan):
    """Write fewer than N sentences."""

    name = "fewer than N sentences"
    quantity, counts = SENTENCES, range(3, 6)

    def apply_to_draft(self, draft: Draft) -> None:
        """Keep about half of the allowed sentences of a real answer, at most four."""
        if draft.context.is_real:
            draft.sentences = draft.sentences[: min(4, (self.count + 1) // 2)]
        super().apply_to_draft(draft)


class SentenceRange(_Between):
    """Write between N and M sentences."""

    name = "between N and M sentences"
    quantity, counts = SENTENCES, range(1, 4)

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one to three sentences (a real answer has at least as many) up to one or two more."""
        most = min(cls.counts[-1], len(context.sentences)) if context.is_real else cls.counts[-1]
        low = context.sampler.number(cls.counts[0], most)
        return cls(low, low + context.sampler.number(1, 2))

    @property
    def slots(self) -> dict[str, object]:
        """Both numbers spelled out."""
        return {"low": NUMBER_WORDS[self.low], "high": NUMBER_WORDS[self.high]}


class MinWords(_AtLeast):
    """Write at least N words."""

    name = "at least N words"
    quantity, counts = WORDS, range(10, 31, 5)
    min_real_words = 90

    @classmethod
    def is_applicable(cls, context: ConstraintContext) -> bool:
        """Whether a real answer is long (see `MinSentences`)."""
        is_long = not context.is_real or count_words(context.text) >= cls.min_real_words
        return is_long and super().is_applicable(context)

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """A third of the words that the answer has, or up to as many, as a multiple of five."""
        # With room to spare, an answer that is a sentence too short still follows.
        num_words = count_words(context.text)
        return context.sampler.number(num_words // 3, num_words) // 5 * 5

    @property
    def num_sentences(self) -> int:
        """Every invented sentence has at least six words."""
        return 1 + self.count // 6


class MaxWords(_AtMost):
    """Write at most N words."""

    name = "at most N words"
    quantity, counts = WORDS, range(30, 61, 5)

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """Twice the words of the first sentence or up to twice the answer's, as a multiple of five or one less."""
        # One less than a round number in half of the cases: people say `under 60 words` as often as `at most 60`.
        sampler, shortest = context.sampler, 2 * count_words(context.sentences[0])
        return _round_up(sampler.number(shortest, 2 * count_words(context.text)) + 1, 5) - sampler.choice((0, 1))

    def most_to_keep(self, draft: Draft) -> float:
        """Of a real answer, half of the limit, and at most 60 words."""
        return min(60, self.count // 2) if draft.context.is_real else super().most_to_keep(draft)

    @property
    def num_sentences(self) -> int:
        """Two sentences where there is room for them."""
        return 1 if self.count < 45 else 2


class WordRange(_Between):
    """Write between N and M words."""

    name = "between N and M words"
    quantity, counts = WORDS, range(25, 46)

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an upper bound that a real answer stays within; the lower bound is half of it."""
        high = _round_up(count_words(context.text) if context.is_real else context.sampler.choice(cls.counts), 5)
        return cls(high // 2, high)

    @property
    def num_sentences(self) -> int:
        """Enough sentences to trim."""
        return 6


class AroundWords(_Around):
    """Write around N words."""

    name = "around N words"
    quantity, counts = WORDS, (20, 25, 30)

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """The answer's own length, rounded up to tens."""
        return _round_up(count_words(context.text), 10)

    @property
    def num_sentences(self) -> int:
        """Enough sentences to trim."""
        return 6


class MinCharacters(_AtLeast):
    """Write at least N characters, spaces included."""

    name = "at least N characters"
    quantity, counts = CHARACTERS, range(100, 201, 20)

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """Up to 59 characters fewer than the answer has."""
        return max(10, len(context.text) // 10 * 10 - context.sampler.choice((0, 10, 50)))

    @property
    def num_sentences(self) -> int:
        """Most invented sentences have 30 characters or more."""
        return self.count // 30


class MaxCharacters(_AtMost):
    """Write at most N characters, spaces included."""

    name = "at most N characters"
    quantity, counts = CHARACTERS, (100, 140, 160, 200)

    @classmethod
    def count_for_real(cls, context: ConstraintContext) -> int:
        """The answer's own length, rounded up to fifties."""
        return _round_up(len(context.text), 50)

    @property
    def num_sentences(self) -> int:
        """Two sentences where there is room for them."""
        return 1 if self.count < 160 else 2


@dataclass(frozen=True)
class ShortSentences(Constraint):
    """Write no sentence of more than N words."""

    name = "short sentences"
    conflicts_with = frozenset({"length"})
    limit: int

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw ten to fifteen words, or take the length of the real answer's longest sentence if that is longer."""
        longest = max(map(count_words, context.sentences), default=0)
        return cls(max(longest, context.sampler.number(10, 15)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Drop long sentences; if all are too long, keep the first, and the check fails."""
        short = [sentence for sentence in draft.sentences if count_words(sentence) <= self.limit]
        draft.sentences = short or draft.sentences[:1]

    def check(self, answer: str) -> bool:
        """True if no sentence exceeds the limit."""
        return all(count_words(sentence) <= self.limit for sentence in split_sentences(answer))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add one sentence that is too long."""
        return add_sentence(answer, f"It makes me think of {' and '.join(sampler.words(self.limit // 2))}.")


def _round_up(number: int, step: int) -> int:
    return math.ceil(number / step) * step
