"""What every kind of constraint is made of: the brief it is drawn from, an answer in the making, the base class."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import ClassVar, Self

import yaml

from keylm.instructions.content_words import content_words
from keylm.instructions.sampler import Phrasings, Sampler, orders, statements

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""Numbers as words."""
PLACES = {"first": 0, "last": -1}
"""Index of a sentence by how a request names it."""


@dataclass(frozen=True)
class ConstraintContext:
    """What a constraint knows when it is drawn and while it is followed."""

    subject: str
    """What the answer is about, in a few words."""
    request: str
    """The sentence that asks for it."""
    sampler: Sampler
    sentences: tuple[str, ...] = ()
    """A real answer, sentence by sentence; empty where the answer is invented."""

    @property
    def is_real(self) -> bool:
        """Whether there is an answer that was not made for the constraint."""
        return bool(self.sentences)

    @property
    def reference(self) -> str:
        """How an added sentence names the subject; a real answer has done so in its own words."""
        return "this" if self.is_real else self.subject

    @property
    def text(self) -> str:
        """The real answer."""
        return " ".join(self.sentences)

    @property
    def known_words(self) -> list[str]:
        """The real answer's words that carry meaning, the most frequent first."""
        return content_words(self.text)

    def words(self, count: int) -> list[str]:
        """Words to ask for: out of the real answer, or ordinary ones."""
        if not self.is_real:
            return self.sampler.words(count)
        return self.sampler.rng.sample(self.known_words, count)

    def number(self, low: int, high: int) -> int:
        """How many parts to ask for: of a real answer up to twice as many, but no more than it has sentences."""
        return self.sampler.number(low, max(low, min(2 * high, len(self.sentences))) if self.is_real else high)


@dataclass
class Draft:
    """An answer in the making: `before`, the sentences with `separator` between them, `after`."""

    brief: ConstraintContext
    sentences: list[str]
    separator: str = " "
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The draft as one text."""
        return self.before + self.separator.join(self.sentences) + self.after

    def gather(self, count: int, separator: str) -> None:
        """Make `count` parts of the sentences, in their order and as even as can be."""
        total, old = len(self.sentences), self.separator
        ends = [total * part // count for part in range(count + 1)]
        parts = (self.sentences[start:end] for start, end in pairwise(ends))
        self.sentences, self.separator = [old.join(part) for part in parts if part], separator


@dataclass(frozen=True)
class Constraint(ABC):
    """Base of every kind. Its fields are its parameters and the slots of its phrasings.

    The phrasings stand in the YAML file beside the kind's module, under the kind's name.
    """

    kind: ClassVar[str]
    parts: ClassVar[frozenset[str]] = frozenset()
    """What the kind takes hold of: two kinds that share a part are never asked for together."""
    suits_real: ClassVar[bool] = True
    """Whether an answer that was not made for it can be made to follow and still read well."""

    @classmethod
    def suits(cls, brief: ConstraintContext) -> bool:
        """Whether to ask for it here."""
        return cls.suits_real or not brief.is_real

    @classmethod
    def phrasings(cls) -> Phrasings:
        """The ways to ask for it."""
        return _phrasings(cls.__module__.rpartition(".")[2])[cls.kind]

    @classmethod
    def sample(cls, _brief: ConstraintContext) -> Self:
        """Draw the parameters."""
        return cls()

    @property
    def num_sentences(self) -> int | None:
        """How many sentences are invented for an answer, if the kind cares."""
        return None

    @property
    def slots(self) -> dict[str, object]:
        """What fills the phrasings' slots."""
        return asdict(self)

    def phrase(self, sampler: Sampler) -> str:
        """Say what is wanted, in words of the sampler's split."""
        text = sampler.phrase(self.phrasings(), **self.slots)
        return text if text[-1] in ".!?" else f"{text}."

    def shape(self, draft: Draft) -> None:  # noqa: B027
        """Change the draft so that it follows."""

    def polish(self, text: str) -> str:
        """Change the finished text so that it follows."""
        return text

    @abstractmethod
    def check(self, answer: str) -> bool:
        """Whether `answer` follows."""

    @abstractmethod
    def spoil(self, answer: str, sampler: Sampler) -> str:
        """An answer that followed, changed as little as can be so that it most likely follows no more."""


@dataclass(frozen=True)
class Counted(Constraint):
    """Base of the kinds that ask for so many of something."""

    counts: ClassVar[tuple[int, int]]
    """The fewest and the most to ask for."""
    unit: ClassVar[str] = ""
    """What is counted, unless the phrasings say it themselves."""
    count: int

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A number between the fewest and the most."""
        return cls(brief.sampler.number(*cls.counts))

    @property
    def slots(self) -> dict[str, object]:
        """The parameters, and the number as a word and as a digit, with its unit if there is one."""
        return {**asdict(self), **_counted(self.count, self.unit)}


def are_compatible(first: type[Constraint], second: type[Constraint]) -> bool:
    """Whether one answer can follow both kinds."""
    return first is not second and not first.parts & second.parts


def listed(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a and b and c`: no commas, for some answers must have none."""
    return " and ".join(words)


def count_words(text: str) -> int:
    """Number of words: stretches of letters, digits and underscores."""
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Number of sentences: stretches of text that end in `.`, `!` or `?` before white space or the end."""
    return len(split_sentences(text))


def split_sentences(text: str) -> list[str]:
    """The sentences, as `count_sentences` counts them."""
    return [piece for piece in re.split(r"(?<=[.!?])\s+", text) if any(map(str.isalnum, piece))]


def _counted(count: int, unit: str) -> dict[str, object]:
    if not unit:
        return {"spelled": NUMBERS[count]}
    units = unit if count == 1 else f"{unit}s"
    return {"number": f"{NUMBERS[count]} {units}", "digits": f"{count} {units}"}


@cache
def _phrasings(module: str) -> dict[str, Phrasings]:
    text = (files(__package__) / f"{module}.yaml").read_text(encoding="utf-8")
    return {kind: _all_forms(groups) for kind, groups in yaml.load(text, _Loader).items()}


def _all_forms(groups: dict[str, list[str]]) -> Phrasings:
    """A kind's phrasings: orders in polite and strict forms, what is said of the answer, whole sentences."""
    train = (*orders(*groups["orders"]), *statements(*groups["statements"]), *groups["sentences"])
    return Phrasings(train, tuple(groups["held_out"]))


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where there is one: ten times as fast."""
