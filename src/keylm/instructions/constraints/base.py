"""The base class of constraints, and what a constraint works on: its context and a draft of the answer.

A constraint from end to end, with `Bullets` as the example:

    context = ConstraintContext("copper lanterns", "Tell me about copper lanterns.", sampler)
    constraint = Bullets.sample(context)             # Bullets(count=2)
    constraint.render(sampler)                       # "Please write two bullet points."

    draft = Draft(context, ["Many people like copper lanterns.", "When it rains, copper lanterns look warm."])
    constraint.apply_to_draft(draft)
    answer = constraint.apply_to_text(draft.text)    # "- Many people like copper lanterns.\\n- When it rains, ..."

    constraint.check(answer)                         # True
    constraint.violate(answer, sampler)              # "Many people like copper lanterns.\\n- When it rains, ..."

The phrasings that `render` chooses from stand in the YAML file beside the constraint's module, under its `name`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, ClassVar, Self

import yaml

from keylm.instructions.content_words import content_words
from keylm.instructions.phrasings import Phrasings, Wordings, orders, statements
from keylm.instructions.sampler import Sampler

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SENTENCE_INDEX = {"first": 0, "last": -1}
"""The index of a sentence by its position in a request."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser if it is installed: ten times as fast."""


@dataclass(frozen=True)
class ConstraintContext:
    """The request and answer that a constraint is drawn for.

    The answer is either invented (assembled from sentence templates after the constraints were drawn) or real (taken
    from a conversation, so the constraints have to fit it).
    """

    subject: str
    """What the answer is about, in a few words."""
    request: str
    """The request, without constraints."""
    sampler: Sampler
    sentences: tuple[str, ...] = ()
    """The real answer, sentence by sentence; empty if the answer is invented."""

    @property
    def is_real(self) -> bool:
        """Whether the answer is real."""
        return bool(self.sentences)

    @property
    def reference(self) -> str:
        """How an added sentence refers to the subject: a real answer has already named it in its own words."""
        return "this" if self.is_real else self.subject

    @property
    def text(self) -> str:
        """The real answer as one text."""
        return " ".join(self.sentences)

    @property
    def known_words(self) -> list[str]:
        """The content words of the real answer, most frequent first."""
        return content_words(self.text)

    def sample_phrase(self, low: int, high: int) -> str:
        """Draw `low` to `high` words in a row out of the request; empty if it has not so many within a sentence."""
        count = self.sampler.number(low, high)
        phrases = re.findall(rf"[\w'-]+(?: [\w'-]+){{{count - 1}}}", self.request)
        return self.sampler.choice(phrases) if phrases else ""

    def sample_words(self, count: int) -> list[str]:
        """Draw different words to ask for: content words of the real answer, or ordinary words."""
        if not self.is_real:
            return self.sampler.words(count)
        return self.sampler.rng.sample(self.known_words, count)

    def sample_count(self, low: int, high: int) -> int:
        """Draw a number of parts to ask for.

        For a real answer it is up to `2 * high`, because real answers are longer, but at most the number of sentences.
        """
        return self.sampler.number(low, max(low, min(2 * high, len(self.sentences))) if self.is_real else high)


@dataclass
class Draft:
    """An answer under construction: `before`, then the sentences joined by `separator`, then `after`."""

    context: ConstraintContext
    sentences: list[str]
    prompt: str = ""
    """The request with its constraints, as the user writes it; empty for an invented answer."""
    separator: str = " "
    # Each is set by at most one constraint: those that set them conflict through `start` or `end`.
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The draft as one text."""
        return self.before + self.separator.join(self.sentences) + self.after

    def as_asked(self, word: str) -> str:
        """A word in quotation marks if the prompt has it in some: within quotation marks, a word has other tokens."""
        return f'"{word}"' if f'"{word}"' in self.prompt or f"'{word}'" in self.prompt else word

    def merge_sentences(self, count: int, separator: str) -> None:
        """Merge the sentences, in order, into `count` parts of nearly equal size, to be joined by `separator`."""
        total, old = len(self.sentences), self.separator
        ends = [total * part // count for part in range(count + 1)]
        parts = (self.sentences[start:end] for start, end in pairwise(ends))
        self.sentences, self.separator = [old.join(part) for part in parts if part], separator


@dataclass(frozen=True)
class Constraint(ABC):
    """Base class of all constraints: what is asked for, how an answer is made to satisfy it, how that is checked.

    The fields of a subclass are the parameters of the constraint, and by default also the slots of its phrasings.
    """

    name: ClassVar[str]
    """Identifies the constraint in score tables and in the YAML file of phrasings."""
    conflicts_with: ClassVar[frozenset[str]] = frozenset()
    """Aspects of an answer that the constraint occupies: it conflicts with every other constraint that names one."""
    applies_to_real: ClassVar[bool] = True
    """Whether a real answer can be changed to satisfy the constraint and still read well."""
    min_real_sentences: ClassVar[int] = 0
    """How many sentences a real answer must have."""
    asks_for_length: ClassVar[bool] = False
    """Whether a real answer may be as long as it is, because the constraint says how much of it there should be."""

    @classmethod
    def is_applicable(cls, context: ConstraintContext) -> bool:
        """Whether the constraint can be asked for in this context."""
        return not context.is_real or (cls.applies_to_real and len(context.sentences) >= cls.min_real_sentences)

    @classmethod
    def phrasings(cls) -> Phrasings:
        """The ways to ask for it, of the YAML file beside the module."""
        return _load_phrasings(cls.__module__.rpartition(".")[2])[cls.name]

    @classmethod
    def wordings(cls) -> Wordings:
        """The ways in which people ask for it, of the same file. Held-out constraints have none."""
        return _load_wordings(cls.__module__.rpartition(".")[2])[cls.name]

    @classmethod
    def sample(cls, _context: ConstraintContext) -> Self:
        """Draw the parameters."""
        return cls()

    @property
    def num_sentences(self) -> int | None:
        """How many sentences an invented answer starts from; None if that does not matter."""
        return None

    @property
    def slots(self) -> dict[str, object]:
        """The values of the phrasings' slots."""
        return asdict(self)

    def render(self, sampler: Sampler) -> str:
        """Ask for the constraint in a sentence, by a phrasing of the sampler's split."""
        text = sampler.render(self.phrasings(), **self.slots)
        # Without a final mark the next instruction would run into this one.
        return text if text[-1] in ".!?" else f"{text}."

    def apply_to_draft(self, draft: Draft) -> None:  # noqa: B027
        """Change the draft, sentence by sentence, so that the answer satisfies the constraint."""

    def apply_to_text(self, text: str) -> str:
        """Change the finished text so that it satisfies the constraint. Runs after `apply_to_draft` of all others."""
        return text

    @abstractmethod
    def check(self, answer: str) -> bool:
        """Whether `answer` satisfies the constraint."""

    @abstractmethod
    def violate(self, answer: str, sampler: Sampler) -> str:
        """Make a small change to an answer that satisfies the constraint, so that it most likely no longer does.

        `keylm.instructions.rejected` keeps the result only if exactly this constraint fails.
        """


@dataclass(frozen=True)
class Counted(Constraint):
    """Base class of the constraints that ask for a number of something."""

    counts: ClassVar[tuple[int, int]]
    """The smallest and the largest number to ask for."""
    unit: ClassVar[str] = ""
    """The singular of what is counted, if the phrasings leave it to a slot."""
    count: int

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number."""
        return cls(context.sampler.number(*cls.counts))

    @property
    def slots(self) -> dict[str, object]:
        """The parameters, and the number spelled out, with its unit if there is one."""
        return {**asdict(self), **count_slots(self.count, self.unit)}


def are_compatible(first: type[Constraint], second: type[Constraint], unless: frozenset[str] = frozenset()) -> bool:
    """Whether one answer can satisfy both constraints: they occupy no aspect in common, or only those of `unless`."""
    return first is not second and first.conflicts_with & second.conflicts_with <= unless


def count_slots(count: int, unit: str) -> dict[str, object]:
    """Slots for a small number: `two parts` and `2 parts`, or `two` where there is no unit."""
    if not unit:
        return {"spelled": NUMBER_WORDS[count]}
    units = unit if count == 1 else f"{unit}s"
    return {"number": f"{NUMBER_WORDS[count]} {units}", "digits": f"{count} {units}"}


def join_words(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a and b and c`: without commas, which some answers must not have."""
    return " and ".join(words)


def count_words(text: str) -> int:
    """Number of words: runs of letters, digits and underscores."""
    # IFEval's pattern.
    return len(re.findall(r"\w+", text))


def count_sentences(text: str) -> int:
    """Number of sentences, as `split_sentences` splits them."""
    return len(split_sentences(text))


def split_sentences(text: str) -> list[str]:
    """Split at white space after `.`, `!` or `?`; pieces without a letter or digit are dropped."""
    # IFEval splits with nltk's punkt, which guesses at abbreviations and quotations. On plain prose the two agree.
    return [piece for piece in re.split(r"(?<=[.!?])\s+", text) if any(map(str.isalnum, piece))]


@cache
def _load_phrasings(module: str) -> dict[str, Phrasings]:
    """The phrasings in a module's YAML file, by constraint name."""
    return {
        name: Phrasings(
            train=(*orders(*groups["orders"]), *statements(*groups["statements"]), *groups["sentences"]),
            held_out=tuple(groups["held_out"]),
        )
        for name, groups in _load_groups(module).items()
    }


@cache
def _load_wordings(module: str) -> dict[str, Wordings]:
    """The natural wordings in a module's YAML file, by constraint name."""
    return {
        name: Wordings(**{form: tuple(templates) for form, templates in groups["natural"].items()})
        for name, groups in _load_groups(module).items()
        if "natural" in groups
    }


@cache
def _load_groups(module: str) -> dict[str, dict[str, Any]]:
    """What a module's YAML file says, by constraint name."""
    text = (files(__package__) / f"{module}.yaml").read_text(encoding="utf-8")
    groups: dict[str, dict[str, Any]] = yaml.load(text, _YAML_LOADER)
    return groups
