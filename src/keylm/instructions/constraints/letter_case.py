"""Constraints on lower and upper case."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from keylm.instructions.constraints.base import (
    SENTENCE_INDEX,
    Constraint,
    ConstraintContext,
    Counted,
    Draft,
    split_sentences,
)
from keylm.instructions.constraints.violations import change_one
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class Lowercase(Constraint):
    """Write in lower case only."""

    name = "all lower case"
    conflicts_with = frozenset({"case"})

    def apply_to_text(self, text: str) -> str:
        """Lower every letter."""
        return text.lower()

    def check(self, answer: str) -> bool:
        """True if no letter is upper case."""
        # IFEval also guesses the language, and takes short answers in English for another.
        return answer.islower()

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Capitalize the start of every sentence, or one word."""
        sentence_case = re.sub(r"(^|[.!?]\s+)([a-z])", lambda match: match[1] + match[2].upper(), answer)
        word = sampler.choice(re.findall(r"[a-z]+", answer))
        one_capitalized = re.sub(rf"\b{word}\b", word.capitalize(), answer, count=1)
        # Sentence case is what a model writes that ignores the constraint; a single capital is the near miss.
        return sampler.choice((sentence_case, one_capitalized))


@dataclass(frozen=True)
class Uppercase(Constraint):
    """Write in upper case only."""

    name = "all capitals"
    conflicts_with = frozenset({"case"})

    def apply_to_text(self, text: str) -> str:
        """Raise every letter."""
        return text.upper()

    def check(self, answer: str) -> bool:
        """True if every letter is upper case."""
        # As for lower case, without IFEval's guess at the language, which takes capitals for German.
        return answer.isupper()

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Lower one word or a run of words."""
        pattern = sampler.choice((r"\b[A-Z]{3,}\b", r"\b[A-Z][A-Z ]{8,}\b"))
        # A short answer may have no run of words that is long enough.
        matches = list(re.finditer(pattern, answer)) or list(re.finditer(r"[A-Z]+", answer))
        match = sampler.choice(matches)
        return answer[: match.start()] + match[0].lower() + answer[match.end() :]


@dataclass(frozen=True)
class _CapitalWords(Counted):
    """Base of the constraints that count words in upper case."""

    conflicts_with = frozenset({"case"})

    def words(self, answer: str) -> int:
        """Number of words without lower-case letters, `I` included; hyphens and apostrophes do not split a word."""
        # Close to nltk's word_tokenize, which IFEval's checker uses, without needing nltk's data.
        return sum(map(str.isupper, re.findall(r"[^\W_]+(?:[-'_./&][^\W_]+)*", answer)))


@dataclass(frozen=True)
class CapitalWords(_CapitalWords):
    """Write at least N words in upper case."""

    name = "words in capitals at least"
    counts = (2, 4)

    def apply_to_draft(self, draft: Draft) -> None:
        """Raise the longest words of the draft."""
        words = set(re.findall(r"\b[a-z]{4,}\b", " ".join(draft.sentences)))
        # Ties go by the alphabet: the order of a set of strings differs from process to process.
        for word in sorted(words, key=lambda word: (-len(word), word))[: self.count]:
            draft.sentences = [re.sub(rf"\b{word}\b", word.upper(), sentence) for sentence in draft.sentences]

    def check(self, answer: str) -> bool:
        """True if at least N words are in upper case."""
        return self.words(answer) >= self.count

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Lower all such words of two letters or more."""
        return re.sub(r"\b[A-Z]{2,}\b", lambda match: match[0].lower(), answer)


@dataclass(frozen=True)
class FewCapitalWords(_CapitalWords):
    """Write fewer than N words in upper case."""

    name = "words in capitals at most"
    counts = (3, 6)

    def check(self, answer: str) -> bool:
        """True if fewer than N words are in upper case."""
        return self.words(answer) < self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Raise the first words until there are too many."""
        return re.sub(r"\b[a-z]{2,}\b", lambda match: match[0].upper(), answer, count=self.count + sampler.number(0, 3))


@dataclass(frozen=True)
class TitleCase(Constraint):
    """Capitalize every word."""

    name = "every word capitalised"
    conflicts_with = frozenset({"case"})

    def apply_to_text(self, text: str) -> str:
        """Capitalize every word."""
        return re.sub(r"(?<![\w'’])[a-z]", lambda match: match[0].upper(), text)

    def check(self, answer: str) -> bool:
        """True if no word begins with a lower-case letter, and there are words."""
        # A letter after an apostrophe begins no word: `don't`.
        return bool(re.search(r"[A-Z]", answer)) and not re.search(r"(?<![\w'’])[a-z]", answer)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Lower the first letters of one to five words."""
        return re.sub(r"(?<= )[A-Z](?=[a-z])", lambda match: match[0].lower(), answer, count=sampler.number(1, 5))


@dataclass(frozen=True)
class ShoutedSentence(Constraint):
    """Write the first or the last sentence in upper case, and no other."""

    name = "one sentence in capitals"
    conflicts_with = frozenset({"case", "length", "layout", "start", "end"})
    min_real_sentences = 2
    position: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the sentence."""
        return cls(context.sampler.choice(tuple(SENTENCE_INDEX)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Raise that sentence."""
        index = SENTENCE_INDEX[self.position]
        draft.sentences[index] = draft.sentences[index].upper()

    def check(self, answer: str) -> bool:
        """True if that sentence, and no other, is in upper case."""
        sentences = split_sentences(answer)
        # A single sentence would be an answer in capitals throughout, which is another constraint.
        if len(sentences) < 2:
            return False
        return sentences.pop(SENTENCE_INDEX[self.position]).isupper() and not any(map(str.isupper, sentences))

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Lower that sentence."""
        return re.sub(r"\b[A-Z]{2,}\b", lambda match: match[0].lower(), answer)


@dataclass(frozen=True)
class ShoutedWord(Constraint):
    """Write one word in upper case wherever it occurs."""

    name = "one word in capitals"
    conflicts_with = frozenset({"case", "length"})
    word: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word, or a content word of the real answer."""
        return cls(context.sample_words(1)[0])

    def apply_to_draft(self, draft: Draft) -> None:
        """Raise the word. An invented answer gets a sentence that contains it."""
        if not draft.context.is_real:
            draft.sentences[-1] = f"It goes well with {self.word}."
        draft.sentences = [re.sub(rf"\b{self.word}\b", self.word.upper(), sentence) for sentence in draft.sentences]

    def check(self, answer: str) -> bool:
        """True if the whole word occurs, always in upper case."""
        occurrences = re.findall(rf"\b{self.word}\b", answer, re.IGNORECASE)
        return bool(occurrences) and all(map(str.isupper, occurrences))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Lower one occurrence of the word."""
        return change_one(rf"\b{self.word}\b", self.word, answer, sampler)
