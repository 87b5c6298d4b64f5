"""Kinds about which answer, and how many: one of several fixed ones, two, one in steps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Counted, Draft
from keylm.instructions.constraints.violations import match_case
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class OneOf(Constraint):
    """Say exactly one of several fixed sentences."""

    kind = "one of fixed answers"
    parts = frozenset({"length", "start", "case"})
    suits_real = False
    sets: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("I would say yes.", "I would say no.", "I cannot say."),
        ("I like it.", "I do not mind it.", "I have no view."),
        ("It is old.", "It is new."),
        ("True.", "False.", "Unknown."),
        ("It is simple.", "It is hard.", "It depends."),
        ("Many people know it.", "Few people know it."),
    )
    options: tuple[str, ...]

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the sets, in any order."""
        options = brief.sampler.choice(cls.sets)
        return cls(tuple(brief.sampler.rng.sample(options, len(options))))

    @property
    def slots(self) -> dict[str, object]:
        """The sentences in quotation marks."""
        return {"options": " / ".join(f'"{option}"' for option in self.options)}

    def shape(self, draft: Draft) -> None:
        """One of them first."""
        draft.before = f"{draft.brief.sampler.choice(self.options)} "

    def check(self, answer: str) -> bool:
        """Whether one of them occurs, and no other."""
        return sum(option in answer for option in self.options) == 1

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """None, or two."""
        said = next(option for option in self.options if option in answer)
        other = sampler.choice([option for option in self.options if option != said])
        return sampler.choice((answer.replace(said, "").strip(), answer.replace(said, f"{said} {other}")))


@dataclass(frozen=True)
class TwoAnswers(Constraint):
    """Give two different answers with six asterisks between them."""

    kind = "two answers"
    parts = frozenset({"length", "layout", "start", "end"})
    suits_real = False
    num_sentences = 4

    def shape(self, draft: Draft) -> None:
        """Two sentences each."""
        draft.gather(2, "\n******\n")

    def check(self, answer: str) -> bool:
        """Whether six asterisks part two answers, none of them empty but for the ends."""
        answers = [each.strip() for each in answer.split("******")]
        said = [each for each in answers if each]
        return all(answers[1:-1]) and len(said) == 2 and said[0] != said[1]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Other asterisks, or only one answer."""
        first, second = answer.split("\n******\n")
        return sampler.choice((f"{first}\n***\n{second}", first, f"{first}\n******\n{first}"))


@dataclass(frozen=True)
class Steps(Counted):
    """Mark so many steps with the word and a number: `Step 1:`."""

    kind = "numbered steps"
    parts = frozenset({"length", "layout", "start", "digits"})
    suits_real = False
    counts = (2, 3)

    @property
    def num_sentences(self) -> int:
        """A sentence for each step."""
        return self.count

    def shape(self, draft: Draft) -> None:
        """The mark in front of each sentence."""
        draft.sentences = [f"Step {number}: {each}" for number, each in enumerate(draft.sentences, 1)]
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """Whether the marks count from 1 to the number asked for."""
        numbers = re.findall(r"^\s*step (\d+):", answer, re.MULTILINE | re.IGNORECASE)
        return numbers == [str(number) for number in range(1, self.count + 1)]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The numbers begin elsewhere, or one has no mark."""
        marked = rf"(step) {sampler.number(1, self.count)}: "
        return re.sub(marked, match_case(sampler.choice(("", "Step: ")), answer), answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Summary(Constraint):
    """Close with one sentence behind `In short:`."""

    kind = "summary"
    parts = frozenset({"length", "end"})
    suits_real = False
    marks = ("In short", "To sum up", "Summary")
    mark: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the usual marks."""
        return cls(brief.sampler.choice(cls.marks))

    def shape(self, draft: Draft) -> None:
        """The mark in front of the last sentence, on a line of its own."""
        draft.after = f"\n{self.mark}: {draft.sentences.pop()}"

    def check(self, answer: str) -> bool:
        """Whether the last line begins with the mark, in small or capital letters."""
        lines = answer.strip().splitlines()
        return len(lines) > 1 and lines[-1].strip().lower().startswith(f"{self.mark.lower()}:")

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The mark is missing, or the whole line."""
        above, _, last = answer.rpartition("\n")
        return sampler.choice((above, f"{above}\n{last.partition(': ')[2]}"))
