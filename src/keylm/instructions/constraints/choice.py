"""Constraints on the number of answers and on fixed answers: one of several sentences, two versions, numbered steps."""

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

    name = "one of fixed answers"
    # `check` compares case-sensitively, so nothing may change the case of the sentences.
    conflicts_with = frozenset({"length", "start", "case"})
    sets: ClassVar[tuple[tuple[str, ...], ...]] = (
        # IFEval's own, by which people's polls and forms are meant.
        ("My answer is yes.", "My answer is no.", "My answer is maybe."),
        ("I would say yes.", "I would say no.", "I cannot say."),
        ("I like it.", "I do not mind it.", "I have no view."),
        ("It is old.", "It is new."),
        ("True.", "False.", "Unknown."),
        ("It is simple.", "It is hard.", "It depends."),
        ("Many people know it.", "Few people know it."),
    )
    options: tuple[str, ...]

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a set of sentences, in random order."""
        options = context.sampler.choice(cls.sets)
        return cls(tuple(context.sampler.rng.sample(options, len(options))))

    @property
    def slots(self) -> dict[str, object]:
        """The sentences in quotation marks."""
        return {"options": " / ".join(f'"{option}"' for option in self.options)}

    def apply_to_draft(self, draft: Draft) -> None:
        """Begin with one of the sentences."""
        draft.before = f"{draft.context.sampler.choice(self.options)} "

    def check(self, answer: str) -> bool:
        """True if exactly one of the sentences occurs."""
        # IFEval is content if any of them occurs; then an answer that lists them all would pass.
        return sum(option in answer for option in self.options) == 1

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the sentence, or add a second one."""
        chosen = next(option for option in self.options if option in answer)
        other = sampler.choice([option for option in self.options if option != chosen])
        return sampler.choice((answer.replace(chosen, "").strip(), answer.replace(chosen, f"{chosen} {other}")))


@dataclass(frozen=True)
class TwoAnswers(Constraint):
    """Give two different answers with six asterisks between them."""

    name = "two answers"
    conflicts_with = frozenset({"length", "layout", "start", "end"})
    # Two for each of the two.
    num_sentences = min_real_sentences = 4

    def apply_to_draft(self, draft: Draft) -> None:
        """Put half of the sentences in each answer."""
        draft.merge_sentences(2, "\n******\n")

    def check(self, answer: str) -> bool:
        """True if six asterisks separate two different answers; only the ends of the text may be empty."""
        # IFEval's rule.
        parts = [part.strip() for part in answer.split("******")]
        answers = [part for part in parts if part]
        return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Shorten the asterisks, remove the second answer, or repeat the first."""
        first, second = answer.split("\n******\n")
        return sampler.choice((f"{first}\n***\n{second}", first, f"{first}\n******\n{first}"))


@dataclass(frozen=True)
class Steps(Counted):
    """Mark N steps with `Step 1:`, `Step 2:` and so on."""

    name = "numbered steps"
    conflicts_with = frozenset({"length", "layout", "start", "digits"})
    applies_to_real = False
    counts = (2, 3)

    @property
    def num_sentences(self) -> int:
        """One sentence for each step."""
        return self.count

    def apply_to_draft(self, draft: Draft) -> None:
        """Put each sentence on a line of its own, after its mark."""
        draft.sentences = [f"Step {number}: {sentence}" for number, sentence in enumerate(draft.sentences, 1)]
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """True if the marks count from 1 to N."""
        numbers = re.findall(r"^\s*step (\d+):", answer, re.MULTILINE | re.IGNORECASE)
        # Compared as a list, so that a step that is skipped, repeated or out of order fails.
        return numbers == [str(number) for number in range(1, self.count + 1)]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one mark, or its number."""
        marked = rf"(step) {sampler.number(1, self.count)}: "
        return re.sub(marked, match_case(sampler.choice(("", "Step: ")), answer), answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class Summary(Constraint):
    """Close with one sentence after `In short:`."""

    name = "summary"
    conflicts_with = frozenset({"length", "end"})
    applies_to_real = False
    marks = ("In short", "To sum up", "Summary")
    mark: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one of the usual marks."""
        return cls(context.sampler.choice(cls.marks))

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the mark and the last sentence on a line of their own."""
        draft.after = f"\n{self.mark}: {draft.sentences.pop()}"

    def check(self, answer: str) -> bool:
        """True if the last line begins with the mark, ignoring case."""
        lines = answer.strip().splitlines()
        return len(lines) > 1 and lines[-1].strip().lower().startswith(f"{self.mark.lower()}:")

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the mark, or the whole line."""
        above, _, last = answer.rpartition("\n")
        return sampler.choice((above, f"{above}\n{last.partition(': ')[2]}"))
