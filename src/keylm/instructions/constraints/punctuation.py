"""Kinds about punctuation marks and digits: to use, to leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Draft, split_sentences
from keylm.instructions.constraints.violations import add_sentence, change_one, match_case
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class NoCommas(Constraint):
    """Use no commas."""

    kind = "no commas"
    parts = frozenset({"commas"})

    def shape(self, draft: Draft) -> None:
        """Of a real answer, the sentences without any, if they are most of it."""
        if draft.brief.is_real:
            kept = [each for each in draft.sentences if "," not in each]
            draft.sentences = kept if len(kept) > 0.7 * len(draft.sentences) else []

    def polish(self, text: str) -> str:
        """Drop them."""
        return text.replace(",", "")

    def check(self, answer: str) -> bool:
        """Whether there is none."""
        return "," not in answer

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One comma."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", ", ", answer, sampler)


@dataclass(frozen=True)
class NoExclamation(Constraint):
    """Use no exclamation marks."""

    kind = "no exclamation marks"
    parts = frozenset({"exclamation"})

    def polish(self, text: str) -> str:
        """Full stops instead."""
        return text.replace("!", ".")

    def check(self, answer: str) -> bool:
        """Whether there is none."""
        return "!" not in answer

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One mark."""
        return change_one(r"(?<=\w)\.(?=\s|$)", "!", answer, sampler)


@dataclass(frozen=True)
class Exclaim(Constraint):
    """End every sentence with an exclamation mark."""

    kind = "only exclamations"
    parts = frozenset({"exclamation", "start", "end", "layout", "words", "length"})

    def shape(self, draft: Draft) -> None:
        """A mark in the place of each full stop."""
        draft.sentences = [f"{each[:-1]}!" if each.endswith((".", "?")) else each for each in draft.sentences]

    def check(self, answer: str) -> bool:
        """Whether every sentence ends with the mark."""
        return answer.strip().endswith("!") and all(each.strip().endswith("!") for each in split_sentences(answer))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A full stop in the place of one of them."""
        return change_one(r"(?<=\w)!(?=\s|$)", ".", answer, sampler)


@dataclass(frozen=True)
class OneExclamation(Constraint):
    """Use exactly one exclamation mark."""

    kind = "one exclamation mark"
    parts = frozenset({"exclamation", "end"})

    def shape(self, draft: Draft) -> None:
        """The last sentence is the one."""
        draft.sentences = [each.replace("!", ".") for each in draft.sentences]
        draft.sentences[-1] = re.sub(r"[.?]$", "!", draft.sentences[-1])

    def check(self, answer: str) -> bool:
        """Whether there is one and no more."""
        return answer.count("!") == 1

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Two, or none."""
        return sampler.choice((answer.replace("!", "."), change_one(r"(?<=\w)\.(?=\s|$)", "!", answer, sampler)))


@dataclass(frozen=True)
class NoDigits(Constraint):
    """Use no digits."""

    kind = "no digits"
    parts = frozenset({"digits"})

    def check(self, answer: str) -> bool:
        """Whether there is none."""
        return not re.search(r"\d", answer)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A sentence with a number."""
        return add_sentence(answer, f"I have seen this {sampler.number(2, 99)} times.")


@dataclass(frozen=True)
class OneNumber(Constraint):
    """Use at least one number, written in digits."""

    kind = "a number in digits"
    parts = frozenset({"digits", "length"})

    def shape(self, draft: Draft) -> None:
        """A sentence with a number, unless there is one."""
        if not draft.brief.is_real:
            draft.sentences.append(f"I have seen this {draft.brief.sampler.number(2, 99)} times.")

    def check(self, answer: str) -> bool:
        """Whether there is a digit."""
        return bool(re.search(r"\d", answer))

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """Words in the place of numbers."""
        return re.sub(r"\d[\d.,]*(?<=\d)", match_case("many", answer), answer)


@dataclass(frozen=True)
class AskQuestion(Constraint):
    """Ask at least one question."""

    kind = "ask a question"
    parts = frozenset({"question", "end", "length"})
    num_sentences = 2

    def shape(self, draft: Draft) -> None:
        """A question about the subject at the end."""
        if "?" not in draft.text:
            draft.sentences.append(f"What do you think about {draft.brief.reference}?")

    def check(self, answer: str) -> bool:
        """Whether there is a question mark."""
        return "?" in answer

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """Full stops instead."""
        return answer.replace("?", ".")


@dataclass(frozen=True)
class Parentheses(Constraint):
    """Put something in parentheses."""

    kind = "parentheses"
    parts = frozenset({"length"})
    suits_real = False
    num_sentences = 2

    def shape(self, draft: Draft) -> None:
        """A remark in parentheses after the first sentence."""
        remark = draft.brief.sampler.choice(("this is true", "as far as I know", "so they say", "as you may know"))
        draft.sentences[0] = f"{draft.sentences[0][:-1]} ({remark}){draft.sentences[0][-1]}"

    def check(self, answer: str) -> bool:
        """Whether there is a pair of parentheses with something in it."""
        return bool(re.search(r"\([^()\n]*\w[^()\n]*\)", answer))

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """The parentheses go, and what is in them stays."""
        return re.sub(r"\(([^()\n]*)\)", r"\1", answer)


@dataclass(frozen=True)
class Semicolon(Constraint):
    """Use a semicolon."""

    kind = "a semicolon"
    parts = frozenset({"length"})
    suits_real = False
    num_sentences = 2

    def shape(self, draft: Draft) -> None:
        """One semicolon in the place of the first full stop."""
        if len(draft.sentences) > 1:
            first, second, *rest = draft.sentences
            small = second if second.startswith("I ") else second[0].lower() + second[1:]
            draft.sentences = [f"{first[:-1]}; {small}", *rest]

    def check(self, answer: str) -> bool:
        """Whether there is one."""
        return ";" in answer

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """Commas instead, or dashes where there may be none."""
        return answer.replace(";", " and" if "," not in answer else ",")


@dataclass(frozen=True)
class Ellipsis(Constraint):
    """Use three dots in a row."""

    kind = "three dots"
    parts = frozenset({"length"})
    num_sentences = 2

    def shape(self, draft: Draft) -> None:
        """Three dots behind the first sentence."""
        draft.sentences[0] = f"{draft.sentences[0][:-1]}..."

    def check(self, answer: str) -> bool:
        """Whether they are there."""
        return "..." in answer

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """One dot is enough."""
        return re.sub(r"\.{3,}", ".", answer)


@dataclass(frozen=True)
class NoMark(Constraint):
    """Leave out a mark or sign."""

    kind = "without a mark"
    parts = frozenset({"start", "end", "layout", "length", "question", "quotes", "marks"})
    signs: ClassVar[Mapping[str, str]] = {
        "colons": ":",
        "semicolons": ";",
        "question marks": "?",
        "quotation marks": '"',
        "round brackets": "(",
        "square brackets": "[",
        "slashes": "/",
        "asterisks": "*",
    }
    mark: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the marks; of a real answer, one that it does without."""
        return cls(brief.sampler.choice([name for name, sign in cls.signs.items() if sign not in brief.text]))

    def polish(self, text: str) -> str:
        """Full stops in the place of question marks, nothing in the place of others."""
        return text.replace(self.signs[self.mark], "." if self.mark == "question marks" else "")

    def check(self, answer: str) -> bool:
        """Whether there is none."""
        return self.signs[self.mark] not in answer

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One such mark between two words."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", f"{self.signs[self.mark]} ", answer, sampler)


@dataclass(frozen=True)
class UseMark(Constraint):
    """Use a mark or sign at least once."""

    kind = "with a mark"
    parts = frozenset({"layout", "length", "quotes"})
    suits_real = False
    signs: ClassVar[Mapping[str, tuple[str, str]]] = {
        "a colon": (":", "There is one more thing: {}."),
        "a slash": ("/", "Some say {} and/or more."),
        "an ampersand": ("&", "It is about {} & more."),
        "an apostrophe": ("'", "It's about {} too."),
        "double quotes": ('"', 'Some people just say "{}".'),
        "a plus sign": ("+", "I think of it + {}."),
    }
    mark: str
    num_sentences = 2

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the marks."""
        return cls(brief.sampler.choice(list(cls.signs)))

    def shape(self, draft: Draft) -> None:
        """Give the last sentence to the mark and an ordinary word."""
        _, frame = self.signs[self.mark]
        draft.sentences[-1] = frame.format(draft.brief.sampler.word())

    def check(self, answer: str) -> bool:
        """Whether it occurs."""
        return self.signs[self.mark][0] in answer

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """It goes."""
        return answer.replace(self.signs[self.mark][0], "")


@dataclass(frozen=True)
class NoHyphens(Constraint):
    """Use no hyphens or dashes."""

    kind = "no dashes"
    parts = frozenset({"layout"})

    def check(self, answer: str) -> bool:
        """Whether there is none, short or long."""
        return not re.search(r"[-–—]", answer)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A dash between two words."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", " - ", answer, sampler)
