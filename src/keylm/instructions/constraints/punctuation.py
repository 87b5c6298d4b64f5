"""Constraints on punctuation marks, signs and digits: which to use or avoid."""

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

    name = "no commas"
    conflicts_with = frozenset({"commas"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Drop sentences with commas from a real answer; if 60% or more have some, drop all: the answer is not used."""
        # Real prose without its commas no longer reads well, so its sentences go instead; invented ones bear it.
        if draft.context.is_real:
            without = [sentence for sentence in draft.sentences if "," not in sentence]
            draft.sentences = without if len(without) > 0.4 * len(draft.sentences) else []

    def apply_to_text(self, text: str) -> str:
        """Remove the commas."""
        return text.replace(",", "")

    def check(self, answer: str) -> bool:
        """True if there is no comma."""
        return "," not in answer

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Insert one comma."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", ", ", answer, sampler)


@dataclass(frozen=True)
class NoExclamation(Constraint):
    """Use no exclamation marks."""

    name = "no exclamation marks"
    conflicts_with = frozenset({"exclamation"})

    def apply_to_text(self, text: str) -> str:
        """Replace exclamation marks by full stops."""
        return text.replace("!", ".")

    def check(self, answer: str) -> bool:
        """True if there is no exclamation mark."""
        return "!" not in answer

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace one full stop by an exclamation mark."""
        return change_one(r"(?<=\w)\.(?=\s|$)", "!", answer, sampler)


@dataclass(frozen=True)
class Exclaim(Constraint):
    """End every sentence with an exclamation mark."""

    name = "only exclamations"
    # Whatever adds text (a title, a list mark, a closing phrase) would add sentences without an exclamation mark.
    conflicts_with = frozenset({"exclamation", "start", "end", "layout", "words", "length"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the final marks."""
        draft.sentences = [re.sub(r"[.?]$", "!", sentence) for sentence in draft.sentences]

    def check(self, answer: str) -> bool:
        """True if every sentence ends with an exclamation mark."""
        # The end is checked as well, because pieces without a letter, such as closing dots, are no sentences.
        sentences = split_sentences(answer)
        return answer.strip().endswith("!") and all(sentence.strip().endswith("!") for sentence in sentences)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace one exclamation mark by a full stop."""
        return change_one(r"(?<=\w)!(?=\s|$)", ".", answer, sampler)


@dataclass(frozen=True)
class OneExclamation(Constraint):
    """Use exactly one exclamation mark."""

    name = "one exclamation mark"
    conflicts_with = frozenset({"exclamation", "end"})

    def apply_to_draft(self, draft: Draft) -> None:
        """End only the last sentence with an exclamation mark."""
        draft.sentences = [sentence.replace("!", ".") for sentence in draft.sentences]
        draft.sentences[-1] = re.sub(r"[.?]$", "!", draft.sentences[-1])

    def check(self, answer: str) -> bool:
        """True if there is exactly one exclamation mark."""
        return answer.count("!") == 1

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the exclamation mark, or add a second one."""
        return sampler.choice((answer.replace("!", "."), change_one(r"(?<=\w)\.(?=\s|$)", "!", answer, sampler)))


@dataclass(frozen=True)
class NoDigits(Constraint):
    """Use no digits."""

    name = "no digits"
    conflicts_with = frozenset({"digits"})

    def check(self, answer: str) -> bool:
        """True if there is no digit."""
        return not re.search(r"\d", answer)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Add a sentence with a number."""
        return add_sentence(answer, f"I have seen this {sampler.number(2, 99)} times.")


@dataclass(frozen=True)
class OneNumber(Constraint):
    """Use at least one number in digits."""

    name = "a number in digits"
    conflicts_with = frozenset({"digits", "length"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Append a sentence with a number to an invented answer."""
        if not draft.context.is_real:
            draft.sentences.append(f"I have seen this {draft.context.sampler.number(2, 99)} times.")

    def check(self, answer: str) -> bool:
        """True if there is a digit."""
        return bool(re.search(r"\d", answer))

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Replace the numbers by words."""
        return re.sub(r"\d[\d.,]*(?<=\d)", match_case("many", answer), answer)


@dataclass(frozen=True)
class AskQuestion(Constraint):
    """Ask at least one question."""

    name = "ask a question"
    conflicts_with = frozenset({"question", "end", "length"})
    num_sentences = 2

    def apply_to_draft(self, draft: Draft) -> None:
        """Append a question about the subject unless there is one."""
        if "?" not in draft.text:
            draft.sentences.append(f"What do you think about {draft.context.reference}?")

    def check(self, answer: str) -> bool:
        """True if there is a question mark."""
        return "?" in answer

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Replace the question marks by full stops."""
        return answer.replace("?", ".")


@dataclass(frozen=True)
class Parentheses(Constraint):
    """Use parentheses."""

    name = "parentheses"
    conflicts_with = frozenset({"length"})
    applies_to_real = False
    num_sentences = 2

    def apply_to_draft(self, draft: Draft) -> None:
        """Append a remark in parentheses to the first sentence."""
        remark = draft.context.sampler.choice(("this is true", "as far as I know", "so they say", "as you may know"))
        draft.sentences[0] = f"{draft.sentences[0][:-1]} ({remark}){draft.sentences[0][-1]}"

    def check(self, answer: str) -> bool:
        """True if there is a pair of parentheses that is not empty."""
        return bool(re.search(r"\([^()\n]*\w[^()\n]*\)", answer))

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the parentheses and leave what is inside."""
        return re.sub(r"\(([^()\n]*)\)", r"\1", answer)


@dataclass(frozen=True)
class Semicolon(Constraint):
    """Use a semicolon."""

    name = "a semicolon"
    conflicts_with = frozenset({"length"})
    applies_to_real = False
    num_sentences = 2

    def apply_to_draft(self, draft: Draft) -> None:
        """Join the first two sentences by a semicolon."""
        if len(draft.sentences) > 1:
            first, second, *rest = draft.sentences
            # The second sentence continues the first, so it loses its capital, unless that is the pronoun's.
            small = second if second.startswith("I ") else second[0].lower() + second[1:]
            draft.sentences = [f"{first[:-1]}; {small}", *rest]

    def check(self, answer: str) -> bool:
        """True if there is a semicolon."""
        return ";" in answer

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Replace the semicolons by commas, or by `and` if the answer has no commas."""
        return answer.replace(";", " and" if "," not in answer else ",")


@dataclass(frozen=True)
class Ellipsis(Constraint):
    """Use three dots in a row."""

    name = "three dots"
    conflicts_with = frozenset({"length"})
    num_sentences = 2

    def apply_to_draft(self, draft: Draft) -> None:
        """End the first sentence with three dots."""
        draft.sentences[0] = f"{draft.sentences[0][:-1]}..."

    def check(self, answer: str) -> bool:
        """True if there are three dots in a row."""
        return "..." in answer

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Replace the dots by one."""
        return re.sub(r"\.{3,}", ".", answer)


@dataclass(frozen=True)
class NoMark(Constraint):
    """Do not use a given mark."""

    name = "without a mark"
    # Whatever adds text may add the mark, or lose its own when `apply_to_text` removes it.
    conflicts_with = frozenset({"start", "end", "layout", "length", "question", "quotes", "marks"})
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
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a mark; of a real answer, one that does not occur in it."""
        return cls(context.sampler.choice([name for name, sign in cls.signs.items() if sign not in context.text]))

    def apply_to_text(self, text: str) -> str:
        """Replace question marks by full stops, and remove other marks."""
        return text.replace(self.signs[self.mark], "." if self.mark == "question marks" else "")

    def check(self, answer: str) -> bool:
        """True if the mark does not occur."""
        return self.signs[self.mark] not in answer

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Insert the mark between two words."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", f"{self.signs[self.mark]} ", answer, sampler)


@dataclass(frozen=True)
class UseMark(Constraint):
    """Use a given mark at least once."""

    name = "with a mark"
    conflicts_with = frozenset({"layout", "length", "quotes"})
    applies_to_real = False
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
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a mark."""
        return cls(context.sampler.choice(list(cls.signs)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the last sentence by one with the mark and an ordinary word."""
        _, frame = self.signs[self.mark]
        draft.sentences[-1] = frame.format(draft.context.sampler.word())

    def check(self, answer: str) -> bool:
        """True if the mark occurs."""
        return self.signs[self.mark][0] in answer

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the mark."""
        return answer.replace(self.signs[self.mark][0], "")


@dataclass(frozen=True)
class NoHyphens(Constraint):
    """Use no hyphens or dashes."""

    name = "no dashes"
    # Bullets, rules and some marks between parts consist of dashes.
    conflicts_with = frozenset({"layout"})

    def check(self, answer: str) -> bool:
        """True if there is no hyphen or dash of any length."""
        return not re.search(r"[-–—]", answer)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Insert a dash between two words."""
        return change_one(r"(?<=[a-z]) (?=[a-z])", " - ", answer, sampler)
