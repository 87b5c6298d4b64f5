"""Kinds about small and capital letters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from keylm.instructions.constraints.base import PLACES, Constraint, ConstraintContext, Counted, Draft, split_sentences
from keylm.instructions.constraints.violations import change_one
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class Lowercase(Constraint):
    """Write in small letters only."""

    kind = "all lower case"
    parts = frozenset({"case"})

    def polish(self, text: str) -> str:
        """Lower every letter."""
        return text.lower()

    def check(self, answer: str) -> bool:
        """Whether no letter is a capital."""
        return answer.islower()

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Capitals where sentences begin, or one somewhere."""
        begun = re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), answer)
        return sampler.choice((begun, _raise_one(answer, sampler)))


@dataclass(frozen=True)
class Uppercase(Constraint):
    """Write in capital letters only."""

    kind = "all capitals"
    parts = frozenset({"case"})

    def polish(self, text: str) -> str:
        """Raise every letter."""
        return text.upper()

    def check(self, answer: str) -> bool:
        """Whether every letter is a capital."""
        return answer.isupper()

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One word in small letters, or a sentence."""
        pattern = sampler.choice((r"\b[A-Z]{3,}\b", r"\b[A-Z][A-Z ]{8,}\b"))
        found = list(re.finditer(pattern, answer)) or list(re.finditer(r"[A-Z]+", answer))
        chosen = sampler.choice(found)
        return answer[: chosen.start()] + chosen[0].lower() + answer[chosen.end() :]


@dataclass(frozen=True)
class _CapitalWords(Counted):
    """Base of the kinds that count words in capital letters."""

    parts = frozenset({"case"})

    def words(self, answer: str) -> int:
        """Number of words without small letters, `I` among them; hyphens and apostrophes do not end a word."""
        return sum(map(str.isupper, re.findall(r"[^\W_]+(?:[-'_./&][^\W_]+)*", answer)))


@dataclass(frozen=True)
class CapitalWords(_CapitalWords):
    """Write at least so many words in capital letters."""

    kind = "words in capitals at least"
    counts = (2, 4)

    def shape(self, draft: Draft) -> None:
        """Raise the longest words of the draft."""
        words = sorted(
            set(re.findall(r"\b[a-z]{4,}\b", " ".join(draft.sentences))), key=lambda word: (-len(word), word)
        )
        for word in words[: self.count]:
            draft.sentences = [re.sub(rf"\b{word}\b", word.upper(), each) for each in draft.sentences]

    def check(self, answer: str) -> bool:
        """Whether there are enough."""
        return self.words(answer) >= self.count

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """Small letters in such words, until there are too few."""
        return re.sub(r"\b[A-Z]{2,}\b", lambda match: match[0].lower(), answer)


@dataclass(frozen=True)
class FewCapitalWords(_CapitalWords):
    """Write fewer than so many words in capital letters."""

    kind = "words in capitals at most"
    counts = (3, 6)

    def check(self, answer: str) -> bool:
        """Whether there are few enough."""
        return self.words(answer) < self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Capital letters in words, until there are too many."""
        return re.sub(r"\b[a-z]{2,}\b", lambda match: match[0].upper(), answer, count=self.count + sampler.number(0, 3))


@dataclass(frozen=True)
class TitleCase(Constraint):
    """Begin every word with a capital letter."""

    kind = "every word capitalised"
    parts = frozenset({"case"})

    def polish(self, text: str) -> str:
        """Raise each word's first letter."""
        return re.sub(r"(?<![\w'’])[a-z]", lambda match: match[0].upper(), text)

    def check(self, answer: str) -> bool:
        """Whether no word begins with a small letter, and there are words."""
        return bool(re.search(r"[A-Z]", answer)) and not re.search(r"(?<![\w'’])[a-z]", answer)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Some words in small letters."""
        return re.sub(r"(?<= )[A-Z](?=[a-z])", lambda match: match[0].lower(), answer, count=sampler.number(1, 5))


@dataclass(frozen=True)
class ShoutedSentence(Constraint):
    """Write the first or the last sentence in capital letters, and no other."""

    kind = "one sentence in capitals"
    parts = frozenset({"case", "length", "layout", "start", "end"})
    place: str
    num_sentences = 3

    @classmethod
    def suits(cls, brief: ConstraintContext) -> bool:
        """A real answer has another sentence, too."""
        return not brief.is_real or len(brief.sentences) > 1

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Either."""
        return cls(brief.sampler.choice(tuple(PLACES)))

    def shape(self, draft: Draft) -> None:
        """Raise it."""
        index = PLACES[self.place]
        draft.sentences[index] = draft.sentences[index].upper()

    def check(self, answer: str) -> bool:
        """Whether it alone is in capitals."""
        sentences = split_sentences(answer)
        if len(sentences) < 2:
            return False
        return sentences.pop(PLACES[self.place]).isupper() and not any(map(str.isupper, sentences))

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """Small letters there, too."""
        return re.sub(r"\b[A-Z]{2,}\b", lambda match: match[0].lower(), answer)


@dataclass(frozen=True)
class ShoutedWord(Constraint):
    """Write one word in capital letters wherever it occurs."""

    kind = "one word in capitals"
    parts = frozenset({"case", "length"})
    word: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word; of a real answer, one that it uses."""
        return cls(brief.words(1)[0])

    def shape(self, draft: Draft) -> None:
        """The word, said once in an invented answer, in capitals."""
        if not draft.brief.is_real:
            draft.sentences[-1] = f"It goes well with {self.word}."
        draft.sentences = [re.sub(rf"\b{self.word}\b", self.word.upper(), each) for each in draft.sentences]

    def check(self, answer: str) -> bool:
        """Whether the whole word occurs, and always in capitals."""
        found = re.findall(rf"\b{self.word}\b", answer, re.IGNORECASE)
        return bool(found) and all(map(str.isupper, found))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The word in small letters, once."""
        return change_one(rf"\b{self.word}\b", self.word, answer, sampler)


def _raise_one(answer: str, sampler: Sampler) -> str:
    word = sampler.choice(re.findall(r"[a-z]+", answer))
    return re.sub(rf"\b{word}\b", word.capitalize(), answer, count=1)
