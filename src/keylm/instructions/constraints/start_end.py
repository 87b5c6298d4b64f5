"""Kinds about how an answer begins and ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Draft, split_sentences
from keylm.instructions.constraints.violations import MENTIONS, change_one, match_case, mention
from keylm.instructions.sampler import Phrasings, Sampler, capitalise


@dataclass(frozen=True)
class StartPhrase(Constraint):
    """Begin with given words."""

    kind = "start phrase"
    parts = frozenset({"start"})
    opening: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One to three ordinary words; of a real answer, those it begins with."""
        count = brief.sampler.number(1, 3)
        words = re.findall(r"[\w'’-]+", brief.text)[:count] if brief.is_real else brief.sampler.words(count)
        return cls(capitalise(" ".join(words)))

    def shape(self, draft: Draft) -> None:
        """The words, a colon, the answer."""
        if not draft.brief.is_real:
            draft.before = f"{self.opening}: "

    def check(self, answer: str) -> bool:
        """Whether the words come first, in small or capital letters."""
        return answer.strip().lower().startswith(self.opening.lower())

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The words are missing, or others come before them."""
        before = match_case(sampler.choice(("Well", "Yes", "Here you are")), answer)
        missing = answer.strip()[len(self.opening) :].lstrip(" :,")
        return sampler.choice((f"{before}: {answer}", missing[:1].upper() + missing[1:]))


@dataclass(frozen=True)
class EndPhrase(Constraint):
    """End with an exact phrase and nothing after it."""

    kind = "end phrase"
    parts = frozenset({"end", "length"})
    endings: ClassVar[Phrasings] = Phrasings(
        train=(
            "That is all about {}.",
            "I hope you like {}.",
            "Do you want to hear about {}?",
            "And now we think of {}.",
            "Thank you and {}.",
            "This was the story of {}.",
        ),
        held_out=(
            "So much for today and {}.",
            "Please ask me again about {}.",
            "Will you remember {}?",
        ),
    )
    closings: ClassVar[tuple[str, ...]] = (
        "I hope this helps.",
        "Let me know if you need more.",
        "Is there anything else that you want to know?",
        "That is all there is to say.",
        "Feel free to ask me more.",
    )
    ending: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A sentence with one or two ordinary words in it; for a real answer, one that goes with any."""
        if brief.is_real:
            return cls(brief.sampler.choice(cls.closings))
        frame = brief.sampler.one_of(cls.endings)
        return cls(frame.format(" ".join(brief.sampler.words(brief.sampler.number(1, 2)))))

    def shape(self, draft: Draft) -> None:
        """The phrase behind the last sentence."""
        draft.after = f" {self.ending}"

    def check(self, answer: str) -> bool:
        """Whether the phrase comes last, in small or capital letters."""
        return answer.strip().strip('"').lower().endswith(self.ending.lower())

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The phrase is missing, or something follows it."""
        return sampler.choice((answer[: -len(self.ending)].rstrip(), _followed(answer, sampler)))


@dataclass(frozen=True)
class Postscript(Constraint):
    """Add a postscript."""

    kind = "postscript"
    parts = frozenset({"end", "length"})
    remarks: ClassVar[tuple[str, ...]] = (
        "I like {}.",
        "Ask me about {} again.",
        "There is more to say about {}.",
        "Tell your friends about {}.",
    )
    marker: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Either of the usual marks."""
        return cls(brief.sampler.choice(("P.S.", "P.S.", "P.P.S")))

    def shape(self, draft: Draft) -> None:
        """A remark on a line of its own."""
        remarks = self.remarks[1:] if draft.brief.is_real else self.remarks
        remark = draft.brief.sampler.choice(remarks).format(draft.brief.reference)
        draft.after = f"\n{self.marker} {remark}"

    def check(self, answer: str) -> bool:
        """Whether the mark occurs, in small or capital letters, spaced or not."""
        pattern = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}[self.marker]
        return bool(re.search(pattern, answer.lower()))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The remark without its mark, or without being there at all."""
        marked = rf"\n{re.escape(self.marker)} "
        return sampler.choice(
            (change_one(marked, "\n", answer, sampler), change_one(rf"{marked}.*", "", answer, sampler))
        )


@dataclass(frozen=True)
class RepeatRequest(Constraint):
    """Repeat the request before the answer."""

    kind = "repeat the request"
    parts = frozenset({"start", "length"})
    request: str

    @classmethod
    def suits(cls, brief: ConstraintContext) -> bool:
        """Only a short request, on one line, is repeated."""
        return len(brief.request) < 200 and "\n" not in brief.request

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """The request is what asks about the topic, without any constraint."""
        return cls(brief.request)

    def shape(self, draft: Draft) -> None:
        """The request on the first line."""
        draft.before = f"{self.request}\n"

    def check(self, answer: str) -> bool:
        """Whether the request comes first, in small or capital letters."""
        return answer.strip().lower().startswith(self.request.strip().lower())

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """The request is missing."""
        return answer[len(self.request) :].lstrip()


@dataclass(frozen=True)
class Quotation(Constraint):
    """Wrap the answer in double quotation marks."""

    kind = "quotation marks"
    parts = frozenset({"start", "end", "quotes"})

    def polish(self, text: str) -> str:
        """One mark in front, one behind."""
        return f'"{text}"'

    def check(self, answer: str) -> bool:
        """Whether the first and the last character are marks."""
        answer = answer.strip()
        return len(answer) > 1 and answer[0] == '"' and answer[-1] == '"'

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One mark is missing, or both."""
        return sampler.choice((answer[1:], answer[:-1], answer[1:-1]))


@dataclass(frozen=True)
class EndMark(Constraint):
    """Close with a given mark."""

    kind = "closing mark"
    parts = frozenset({"end", "length"})
    mark: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Any of some marks, or an ordinary word in brackets."""
        marks = ("###", "~~~", "/end", "+++", "(the end)", "(done)", f"({brief.sampler.word()})")
        return cls(brief.sampler.choice(marks))

    def shape(self, draft: Draft) -> None:
        """The mark behind the last sentence."""
        draft.after = f" {self.mark}"

    def check(self, answer: str) -> bool:
        """Whether the mark comes last, in small or capital letters, with something before it."""
        answer = answer.strip().lower()
        return answer.endswith(self.mark) and answer != self.mark

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The mark is missing, or something follows it."""
        return sampler.choice((answer[: -len(self.mark)].rstrip(), _followed(answer, sampler)))


@dataclass(frozen=True)
class SecondSentence(Constraint):
    """Begin the second sentence with a given word."""

    kind = "second sentence"
    parts = frozenset({"length", "layout", "start"})
    suits_real = False
    word: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word."""
        return cls(brief.sampler.word())

    def shape(self, draft: Draft) -> None:
        """A sentence about the word, behind the first."""
        draft.sentences[1] = f"{capitalise(self.word)} comes to mind."

    def check(self, answer: str) -> bool:
        """Whether the word is the first of the second sentence, in small or capital letters."""
        second = split_sentences(answer)[1:2]
        return bool(second) and re.findall(r"\w+", second[0].lower())[:1] == [self.word]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in its place."""
        return re.sub(rf"\b{self.word}(?= comes)", match_case(sampler.word(), answer), answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class EndQuestion(Constraint):
    """End with a question."""

    kind = "end with a question"
    parts = frozenset({"end", "length", "question"})
    questions = ("What do you think about {}?", "Do you want to know more about {}?", "What else is there about {}?")

    def shape(self, draft: Draft) -> None:
        """A question about the subject behind the last sentence."""
        draft.sentences.append(draft.brief.sampler.choice(self.questions).format(draft.brief.reference))

    def check(self, answer: str) -> bool:
        """Whether the last character, but for quotation marks, is a question mark."""
        return answer.strip().strip('"').endswith("?")

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A full stop instead, or a sentence behind the question."""
        return sampler.choice((f"{answer.rstrip('?')}.", _followed(answer, sampler)))


@dataclass(frozen=True)
class LastWord(Constraint):
    """Let a given word be the last."""

    kind = "last word"
    parts = frozenset({"end", "length"})
    word: str
    num_sentences = 2

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """An ordinary word; of a real answer, its own last."""
        words = re.findall(r"[a-z]+", brief.text.lower())
        return cls(words[-1] if words else brief.sampler.word())

    def shape(self, draft: Draft) -> None:
        """Give the last sentence to the word."""
        if not draft.brief.is_real:
            draft.sentences[-1] = draft.brief.sampler.choice(MENTIONS).format(self.word)

    def check(self, answer: str) -> bool:
        """Whether the last whole word is the one, in small or capital letters."""
        return re.findall(r"\w+", answer.lower())[-1:] == [self.word]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A sentence behind it."""
        return _followed(answer, sampler)


@dataclass(frozen=True)
class FirstLetter(Constraint):
    """Begin with a word that begins with a given letter."""

    kind = "first letter"
    parts = frozenset({"start"})
    letter: str
    openings = (
        "As you know",
        "By the way",
        "Dear reader",
        "Easy question",
        "Good question",
        "Let me see",
        "Of course",
        "Sure",
        "Well",
        "Yes",
    )

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A letter that an opening begins with; of a real answer, its own."""
        letters = sorted({opening[0] for opening in cls.openings})
        return cls(brief.text[0].upper() if brief.is_real else brief.sampler.choice(letters))

    def shape(self, draft: Draft) -> None:
        """An opening with the letter."""
        if not draft.brief.is_real:
            draft.before = next(each for each in self.openings if each[0] == self.letter) + ": "

    def check(self, answer: str) -> bool:
        """Whether the first letter is the one, small or capital."""
        return answer.strip().lower().startswith(self.letter.lower())

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another opening comes first."""
        other = sampler.choice([each for each in self.openings if each[0] != self.letter])
        return f"{match_case(other, answer)}: {answer}"


@dataclass(frozen=True)
class Greeting(Constraint):
    """Begin with a greeting."""

    kind = "greeting"
    parts = frozenset({"start", "length", "exclamation"})
    greetings = ("Hello!", "Hi!", "Hello there!", "Good day!")

    def shape(self, draft: Draft) -> None:
        """One of the usual greetings."""
        draft.before = f"{draft.brief.sampler.choice(self.greetings)} "

    def check(self, answer: str) -> bool:
        """Whether one of the usual words of greeting comes first."""
        return bool(
            re.match(r"\W*(hello|hi|hey|good (day|morning|evening|afternoon)|greetings|dear)\b", answer, re.IGNORECASE)
        )

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """No greeting."""
        return re.sub(r"^[\w ]+! ", "", answer)


@dataclass(frozen=True)
class Signature(Constraint):
    """Sign with a given name on a line of its own."""

    kind = "signature"
    parts = frozenset({"end", "length"})
    name: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """A first name."""
        return cls(brief.sampler.people(1)[0])

    def shape(self, draft: Draft) -> None:
        """The name on the last line."""
        draft.after = f"\n{self.name}"

    def check(self, answer: str) -> bool:
        """Whether the name, with or without a dash, is all of the last line."""
        last = answer.strip().splitlines()[-1:]
        return bool(last) and last[0].strip(" -–—.").lower() == self.name.lower() and "\n" in answer.strip()

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """No name, or another."""
        above = answer.rstrip()[: -len(self.name)].rstrip()
        return sampler.choice((above, f"{above}\n{match_case(sampler.name(), answer)}"))


@dataclass(frozen=True)
class Frame(Constraint):
    """Begin and end with the same word."""

    kind = "same word first and last"
    parts = frozenset({"start", "end", "length"})
    suits_real = False
    num_sentences = 2

    def shape(self, draft: Draft) -> None:
        """A word with a colon in front, and a sentence that ends with it."""
        word = draft.brief.sampler.word()
        draft.before = f"{capitalise(word)}: "
        draft.sentences[-1] = draft.brief.sampler.choice(MENTIONS).format(word)

    def check(self, answer: str) -> bool:
        """Whether the first and the last whole word are the same, and there are others between."""
        words = re.findall(r"\w+", answer.lower())
        return len(words) > 2 and words[0] == words[-1]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """A sentence behind it."""
        return _followed(answer, sampler)


def _followed(answer: str, sampler: Sampler) -> str:
    return f"{answer} {match_case(mention(sampler), answer)}"
