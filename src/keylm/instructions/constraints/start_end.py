"""Constraints on how an answer begins and ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Draft, split_sentences
from keylm.instructions.constraints.violations import MENTIONS, append_mention, change_one, match_case
from keylm.instructions.phrasings import Phrasings, capitalize
from keylm.instructions.sampler import Sampler

MAX_ENDING = 90
"""Longer sentences, in characters, are not asked for as the end of an answer."""


@dataclass(frozen=True)
class StartPhrase(Constraint):
    """Begin with given words."""

    name = "start phrase"
    conflicts_with = frozenset({"start"})
    opening: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one to three ordinary words, or the first words of the real answer."""
        count = context.sampler.number(1, 3)
        words = re.findall(r"[\w'’-]+", context.text)[:count] if context.is_real else context.sampler.words(count)
        return cls(capitalize(" ".join(words)))

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the words and a colon before an invented answer."""
        if not draft.context.is_real:
            draft.before = f"{self.opening}: "

    def check(self, answer: str) -> bool:
        """True if the answer begins with the words, ignoring case."""
        # IFEval minds case, and accepts the start of any line. Here another constraint may ask for capitals throughout.
        return answer.strip().lower().startswith(self.opening.lower())

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Put other words before them, or remove them."""
        before = match_case(sampler.choice(("Well", "Yes", "Here you are")), answer)
        rest = answer.strip()[len(self.opening) :].lstrip(" :,")
        return sampler.choice((f"{before}: {answer}", capitalize(rest)))


@dataclass(frozen=True)
class EndPhrase(Constraint):
    """End with an exact phrase and nothing after it."""

    name = "end phrase"
    conflicts_with = frozenset({"end", "length"})
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
        "See you at the {}.",
        "Long live the {}.",
        "No {} without {}.",
        "With love from the {}.",
        "The rest is {}.",
        "And then there was only {}.",
        "Thanks from all of us at {}.",
        "Mind the {}.",
        "To be continued after the {}.",
        "So there you have it, {}.",
        "Don't forget your {}.",
        "Just like {}, only better.",
        "We open again at {}.",
        "Good night, {}.",
        "Hurray for the {}!",
        "Are you ready for {}?",
        "And the {} lived happily ever after.",
        "That's how it goes with {}.",
        "Only the {} knows.",
        "Sent from my {}.",
        "It was the {} after all.",
        "My name is {}, and I approve.",
        "Ask for {} at the desk.",
        "Stay {}, stay {}.",
        "Peace, love and {}.",
        "Who needs {} anyway?",
        "{} first, then {}.",
        "Now back to {}.",
    )
    """Fixed phrases, and some with ordinary words, which have to be copied."""
    ending: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a sentence with one or two ordinary words.

        For a real answer it may also be its last sentence, one that fits any answer, or a few words of the request.
        """
        sampler = context.sampler
        if context.is_real and sampler.chance(0.85):
            *others, last = context.sentences
            # Any words may be asked for, so those that no rule wrote teach to copy more than invented ones.
            is_own = others and len(last) <= MAX_ENDING and '"' not in last and sampler.chance(0.2)
            phrase = capitalize(context.sample_phrase(2, 9)) if sampler.chance(0.5) else ""
            closing = sampler.choice(cls.closings)
            invented = capitalize(closing.format(*sampler.words(closing.count("{}"))))
            ending = last if is_own else f"{phrase}." if phrase else invented
            return cls(ending.rstrip(".") if sampler.chance(0.2) else ending)
        return cls(sampler.phrasing(cls.endings).format(" ".join(sampler.words(sampler.number(1, 2)))))

    def apply_to_draft(self, draft: Draft) -> None:
        """Append the phrase, or move it to the end; behind two sentences of a real answer that is no list."""
        if len(draft.sentences) > 1 and draft.sentences[-1].startswith(self.ending):
            draft.sentences.pop()
        if draft.context.is_real and draft.separator == " ":
            # Behind the second sentence the phrase can be expected. After any number of sentences, it is never the
            # likeliest continuation, and greedy answers lack it.
            draft.sentences = draft.sentences[:2]
        is_list = draft.context.is_real and draft.separator == "\n"
        draft.after = f"\n{self.ending}" if is_list else f" {self.ending}"

    def check(self, answer: str) -> bool:
        """True if the answer ends with the phrase, ignoring case."""
        # Like IFEval's checker, this ignores quotation marks around the answer.
        return answer.strip().strip('"').lower().endswith(self.ending.lower())

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the phrase, or append a sentence."""
        return sampler.choice((answer[: -len(self.ending)].rstrip(), append_mention(answer, sampler)))


@dataclass(frozen=True)
class Postscript(Constraint):
    """Add a postscript."""

    name = "postscript"
    conflicts_with = frozenset({"end", "length"})
    remarks: ClassVar[tuple[str, ...]] = (
        "I like {}.",
        "Ask me about {} again.",
        "There is more to say about {}.",
        "Tell your friends about {}.",
    )
    marker: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one of the usual markers."""
        return cls(context.sampler.choice(("P.S.", "P.S.", "P.P.S")))

    def apply_to_draft(self, draft: Draft) -> None:
        """Append a remark on a line of its own."""
        # The first remark needs a named subject; a real answer is referred to as `this`.
        remarks = self.remarks[1:] if draft.context.is_real else self.remarks
        remark = draft.context.sampler.choice(remarks).format(draft.context.reference)
        draft.after = f"\n{self.marker} {remark}"

    def check(self, answer: str) -> bool:
        """True if the marker occurs, ignoring case and spaces after its dots."""
        # IFEval's patterns.
        pattern = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}[self.marker]
        return bool(re.search(pattern, answer.lower()))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the marker, or the whole postscript."""
        marked = rf"\n{re.escape(self.marker)} "
        return sampler.choice(
            (change_one(marked, "\n", answer, sampler), change_one(rf"{marked}.*", "", answer, sampler))
        )


@dataclass(frozen=True)
class RepeatRequest(Constraint):
    """Repeat the request before the answer."""

    name = "repeat the request"
    conflicts_with = frozenset({"start", "length"})
    request: str

    @classmethod
    def is_applicable(cls, context: ConstraintContext) -> bool:
        """Only a short request on one line is repeated."""
        return len(context.request) < 200 and "\n" not in context.request

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Take the request as it stands in the context, without constraints."""
        return cls(context.request)

    def apply_to_draft(self, draft: Draft) -> None:
        """Write the request on the first line."""
        draft.before = f"{self.request}\n"

    def check(self, answer: str) -> bool:
        """True if the answer begins with the request, ignoring case."""
        return answer.strip().lower().startswith(self.request.strip().lower())

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the request."""
        return answer[len(self.request) :].lstrip()


@dataclass(frozen=True)
class Quotation(Constraint):
    """Wrap the answer in double quotation marks."""

    name = "quotation marks"
    conflicts_with = frozenset({"start", "end", "quotes"})

    def apply_to_text(self, text: str) -> str:
        """Add the quotation marks."""
        return f'"{text}"'

    def check(self, answer: str) -> bool:
        """True if the first and the last character are quotation marks."""
        answer = answer.strip()
        # A lone mark is not both.
        return len(answer) > 1 and answer[0] == '"' and answer[-1] == '"'

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one of the marks or both."""
        return sampler.choice((answer[1:], answer[:-1], answer[1:-1]))


@dataclass(frozen=True)
class EndMark(Constraint):
    """End with a given mark."""

    name = "closing mark"
    conflicts_with = frozenset({"end", "length"})
    mark: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a mark or an ordinary word in brackets."""
        marks = ("###", "~~~", "/end", "+++", "(the end)", "(done)", f"({context.sampler.word()})")
        return cls(context.sampler.choice(marks))

    def apply_to_draft(self, draft: Draft) -> None:
        """Append the mark."""
        draft.after = f" {self.mark}"

    def check(self, answer: str) -> bool:
        """True if the answer ends with the mark, ignoring case, and has something before it."""
        answer = answer.strip().lower()
        # The mark alone would be a way to pass without an answer.
        return answer.endswith(self.mark) and answer != self.mark

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the mark, or append a sentence."""
        return sampler.choice((answer[: -len(self.mark)].rstrip(), append_mention(answer, sampler)))


@dataclass(frozen=True)
class SecondSentence(Constraint):
    """Begin the second sentence with a given word."""

    name = "second sentence"
    conflicts_with = frozenset({"length", "layout", "start"})
    applies_to_real = False
    word: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word."""
        return cls(context.sampler.word())

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the second sentence by one that begins with the word."""
        draft.sentences[1] = f"{capitalize(self.word)} comes to mind."

    def check(self, answer: str) -> bool:
        """True if the second sentence begins with the word, ignoring case."""
        second = split_sentences(answer)[1:2]
        return bool(second) and re.findall(r"\w+", second[0].lower())[:1] == [self.word]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the word by another."""
        return re.sub(rf"\b{self.word}(?= comes)", match_case(sampler.word(), answer), answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class EndQuestion(Constraint):
    """End with a question."""

    name = "end with a question"
    conflicts_with = frozenset({"end", "length", "question"})
    questions = ("What do you think about {}?", "Do you want to know more about {}?", "What else is there about {}?")

    def apply_to_draft(self, draft: Draft) -> None:
        """Append a question about the subject."""
        draft.sentences.append(draft.context.sampler.choice(self.questions).format(draft.context.reference))

    def check(self, answer: str) -> bool:
        """True if the last character, apart from quotation marks, is a question mark."""
        return answer.strip().strip('"').endswith("?")

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the question mark by a full stop, or append a sentence."""
        return sampler.choice((f"{answer.rstrip('?')}.", append_mention(answer, sampler)))


@dataclass(frozen=True)
class LastWord(Constraint):
    """End with a given word."""

    name = "last word"
    conflicts_with = frozenset({"end", "length"})
    word: str
    num_sentences = 2

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word, or take the last word of the real answer."""
        words = re.findall(r"[a-z]+", context.text.lower())
        return cls(words[-1] if words else context.sampler.word())

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace the last sentence by one that ends with the word."""
        if not draft.context.is_real:
            draft.sentences[-1] = draft.context.sampler.choice(MENTIONS).format(self.word)

    def check(self, answer: str) -> bool:
        """True if the last word is the given one, ignoring case."""
        return re.findall(r"\w+", answer.lower())[-1:] == [self.word]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Append a sentence."""
        return append_mention(answer, sampler)


@dataclass(frozen=True)
class FirstLetter(Constraint):
    """Begin with a word that begins with a given letter."""

    name = "first letter"
    conflicts_with = frozenset({"start"})
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
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the first letter of one of the openings, or take that of the real answer."""
        # Only letters that an opening has: an invented answer must be able to begin with it.
        letters = sorted({opening[0] for opening in cls.openings})
        return cls(context.text[0].upper() if context.is_real else context.sampler.choice(letters))

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the opening with the letter before an invented answer."""
        if not draft.context.is_real:
            draft.before = next(opening for opening in self.openings if opening[0] == self.letter) + ": "

    def check(self, answer: str) -> bool:
        """True if the answer begins with the letter, ignoring case."""
        return answer.strip().lower().startswith(self.letter.lower())

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Put an opening with another letter first."""
        other = sampler.choice([opening for opening in self.openings if opening[0] != self.letter])
        return f"{match_case(other, answer)}: {answer}"


@dataclass(frozen=True)
class Greeting(Constraint):
    """Begin with a greeting."""

    name = "greeting"
    conflicts_with = frozenset({"start", "length", "exclamation"})
    greetings = ("Hello!", "Hi!", "Hello there!", "Good day!")

    def apply_to_draft(self, draft: Draft) -> None:
        """Put a greeting first."""
        draft.before = f"{draft.context.sampler.choice(self.greetings)} "

    def check(self, answer: str) -> bool:
        """True if the answer begins with one of the usual greetings."""
        return bool(
            re.match(r"\W*(hello|hi|hey|good (day|morning|evening|afternoon)|greetings|dear)\b", answer, re.IGNORECASE)
        )

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the greeting."""
        return re.sub(r"^[\w ]+! ", "", answer)


@dataclass(frozen=True)
class Signature(Constraint):
    """Sign with a given name on a line of its own."""

    name = "signature"
    conflicts_with = frozenset({"end", "length"})
    signature: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a first name."""
        return cls(context.sampler.people(1)[0])

    def apply_to_draft(self, draft: Draft) -> None:
        """Write the name on the last line."""
        draft.after = f"\n{self.signature}"

    def check(self, answer: str) -> bool:
        """True if the last line is the name, with or without dashes, ignoring case."""
        last = answer.strip().splitlines()[-1:]
        return bool(last) and last[0].strip(" -–—.").lower() == self.signature.lower() and "\n" in answer.strip()

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the name, or replace it by another."""
        above = answer.rstrip()[: -len(self.signature)].rstrip()
        return sampler.choice((above, f"{above}\n{match_case(sampler.name(), answer)}"))


@dataclass(frozen=True)
class Frame(Constraint):
    """Begin and end with the same word."""

    name = "same word first and last"
    conflicts_with = frozenset({"start", "end", "length"})
    applies_to_real = False
    num_sentences = 2

    def apply_to_draft(self, draft: Draft) -> None:
        """Put a word and a colon first, and end with a sentence that ends with the word."""
        word = draft.context.sampler.word()
        draft.before = f"{capitalize(word)}: "
        draft.sentences[-1] = draft.context.sampler.choice(MENTIONS).format(word)

    def check(self, answer: str) -> bool:
        """True if the first and the last word are the same and there are others between them."""
        words = re.findall(r"\w+", answer.lower())
        # Otherwise one word would pass, or one word twice.
        return len(words) > 2 and words[0] == words[-1]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Append a sentence."""
        return append_mention(answer, sampler)
