"""Kinds of instructions that a program can check: one small class each, listed in `KINDS`.

Where IFEval (Zhou et al. 2023) has the same kind, `check` means what IFEval's checker means.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import ClassVar, Self

from keylm.data.instructions.sampler import Phrasings, Sampler, capitalise, orders
from keylm.data.instructions.topics import Topic


@dataclass(frozen=True)
class Brief:
    """What a constraint knows when it is drawn and while it is followed."""

    topic: Topic
    request: str
    """The sentence that asks about the topic."""
    sampler: Sampler


@dataclass
class Draft:
    """An answer in the making: `before`, the sentences with `separator` between them, `after`."""

    brief: Brief
    sentences: list[str]
    separator: str = " "
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        """The draft as one text."""
        return self.before + self.separator.join(self.sentences) + self.after


@dataclass(frozen=True)
class Constraint:
    """Base of every kind. Its fields are its parameters and the slots of its phrasings."""

    kind: ClassVar[str]
    phrasings: ClassVar[Phrasings]
    parts: ClassVar[frozenset[str]] = frozenset()
    """What the kind takes hold of: two kinds that share a part are never asked for together."""

    @classmethod
    def sample(cls, _brief: Brief) -> Self:
        """Draw the parameters."""
        return cls()

    @property
    def num_sentences(self) -> int | None:
        """How many sentences the answer is made of, if the kind cares."""
        return None

    @property
    def slots(self) -> dict[str, object]:
        """What fills the phrasings' slots."""
        return asdict(self)

    def phrase(self, sampler: Sampler) -> str:
        """Say what is wanted, in words of the sampler's split."""
        text = sampler.phrase(self.phrasings, **self.slots)
        return text if text[-1] in ".!?" else f"{text}."

    def shape(self, draft: Draft) -> None:
        """Change the draft so that it follows."""

    def polish(self, text: str) -> str:
        """Change the finished text so that it follows."""
        return text

    def check(self, answer: str) -> bool:
        """Whether `answer` follows."""
        raise NotImplementedError


def compatible(first: type[Constraint], second: type[Constraint]) -> bool:
    """Whether one answer can follow both kinds."""
    return first is not second and not first.parts & second.parts


@dataclass(frozen=True)
class Keywords(Constraint):
    """Use given words, inside other words or not."""

    kind = "keywords"
    parts = frozenset({"words", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "include {words}",
                "use {words}",
                "use {words} in your answer",
                "mention {words}",
                "put {words} into your answer",
                "say something about {words} as well",
                "write about {words} too",
            ),
            "Your answer must contain {words}",
            "The answer must have {words} in it",
            "Your reply should contain {words}",
            "Do not forget to use {words}",
            "I want to see {words} in the answer",
        ),
        held_out=(
            "Be sure that {words} appear in the text",
            "Work {words} into what you write",
            "It is required that {words} can be found in the text",
        ),
    )
    words: tuple[str, ...]
    num_sentences = 2

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """One to three ordinary words."""
        return cls(tuple(brief.sampler.words(brief.sampler.number(1, 3))))

    @property
    def slots(self) -> dict[str, object]:
        """The words as a list in a sentence."""
        return {"words": f"the {'word' if len(self.words) == 1 else 'words'} {_listed(self.words)}"}

    def shape(self, draft: Draft) -> None:
        """Give the last sentence to the words."""
        draft.sentences[-1] = draft.brief.sampler.choice(MENTIONS).format(_listed(self.words))

    def check(self, answer: str) -> bool:
        """Whether every word occurs, in small or capital letters."""
        return all(re.search(word, answer, re.IGNORECASE) for word in self.words)


@dataclass(frozen=True)
class Frequency(Constraint):
    """Use a word at least so many times."""

    kind = "keyword frequency"
    parts = frozenset({"words", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "use the word {word} at least {times} times",
                "say {word} {times} times or more",
                "write the word {word} at least {times} times in your answer",
                "mention {word} {times} times",
            ),
            "The word {word} should appear at least {times} times",
            "Your answer must contain the word {word} {times} times or more",
            "The word {word} has to be in the reply {times} times",
        ),
        held_out=(
            "No fewer than {times} times should I see the word {word}",
            "Let the word {word} occur at least {times} times",
        ),
    )
    word: str
    times: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """An ordinary word, two or three times."""
        return cls(brief.sampler.word(), brief.sampler.number(2, 3))

    @property
    def num_sentences(self) -> int:
        """A sentence about the topic and one for each time."""
        return 1 + self.times

    def shape(self, draft: Draft) -> None:
        """Give every sentence but the first to the word."""
        mentions = draft.brief.sampler.rng.sample(MENTIONS, self.times)
        draft.sentences[1:] = [mention.format(self.word) for mention in mentions]

    def check(self, answer: str) -> bool:
        """Whether the word occurs often enough, in small or capital letters."""
        return len(re.findall(self.word, answer, re.IGNORECASE)) >= self.times


@dataclass(frozen=True)
class Forbidden(Constraint):
    """Leave a word out."""

    kind = "forbidden word"
    phrasings = Phrasings(
        train=(
            *orders(
                "avoid the word {word}",
                "leave out the word {word}",
                "write without the word {word}",
            ),
            "The word {word} is not allowed",
            "The word {word} must not be in your answer",
            "Your reply must not contain the word {word}",
            "Don't use the word {word}",
            "Do not use the word {word}",
            "Never say {word}",
        ),
        held_out=(
            "The answer must not mention the word {word} anywhere",
            "Refrain from using the word {word}",
        ),
    )
    word: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """An ordinary word."""
        return cls(brief.sampler.word())

    def check(self, answer: str) -> bool:
        """Whether the whole word does not occur."""
        return not re.search(rf"\b{self.word}\b", answer, re.IGNORECASE)


@dataclass(frozen=True)
class Sentences(Constraint):
    """Write an exact number of sentences."""

    kind = "number of sentences"
    parts = frozenset({"length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "write exactly {number}",
                "write {number}",
                "use exactly {number}",
                "answer in {number}",
                "reply in {number}",
                "keep it to {number}",
                "give me {number}",
            ),
            "Your answer should have {number}",
            "Your reply must be {number} long",
            "Length: {number}",
            "{number} only",
            "I need exactly {number}",
        ),
        held_out=(
            "The text should be made of {number}",
            "Respond with {number}, no more and no less",
        ),
    )
    count: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """One to four sentences."""
        return cls(brief.sampler.number(1, 4))

    @property
    def num_sentences(self) -> int:
        """The number asked for."""
        return self.count

    @property
    def slots(self) -> dict[str, object]:
        """The number as a word, with its unit."""
        return {"number": _counted(self.count, "sentence")}

    def check(self, answer: str) -> bool:
        """Whether the number of sentences is exact."""
        return count_sentences(answer) == self.count


@dataclass(frozen=True)
class MaxWords(Constraint):
    """Write at most so many words."""

    kind = "at most N words"
    parts = frozenset({"length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "use at most {limit} words",
                "write no more than {limit} words",
                "write at most {limit} words",
                "keep it to {limit} words or fewer",
                "keep the answer short, at most {limit} words",
            ),
            "Your answer must not be longer than {limit} words",
            "Maximum: {limit} words",
            "The limit is {limit} words",
            "Not more than {limit} words",
            "At most {limit} words",
        ),
        held_out=(
            "Stay within {limit} words",
            "The whole text may have up to {limit} words",
        ),
    )
    limit: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """Thirty to sixty words."""
        return cls(brief.sampler.choice(range(30, 61, 5)))

    @property
    def num_sentences(self) -> int:
        """One sentence, or two where there is room."""
        return 1 if self.limit < 45 else 2

    def check(self, answer: str) -> bool:
        """Whether the words are within the limit."""
        return len(re.findall(r"\w+", answer)) <= self.limit


@dataclass(frozen=True)
class Bullets(Constraint):
    """Write an exact number of bullet points."""

    kind = "bullet points"
    parts = frozenset({"length", "layout", "start"})
    phrasings = Phrasings(
        train=(
            *orders(
                "write {number}",
                "use {number}",
                "answer with {number}",
                "answer with exactly {number}",
                "give me {number}",
                "make a list with {number}",
                "reply in {number}",
            ),
            "Your answer should have {number}",
            "Your reply must contain exactly {number}",
            "Format: {number}",
            "I need {number}",
            "A list of {number}",
        ),
        held_out=(
            "Structure the text as {number}",
            "There must be {number} in the response, each on its own line",
        ),
    )
    count: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """Two to four points."""
        return cls(brief.sampler.number(2, 4))

    @property
    def num_sentences(self) -> int:
        """A sentence for each point."""
        return self.count

    @property
    def slots(self) -> dict[str, object]:
        """The number as a word, with its unit."""
        return {"number": _counted(self.count, "bullet point")}

    def shape(self, draft: Draft) -> None:
        """One sentence a line, each behind a dash."""
        draft.sentences = [f"- {sentence}" for sentence in draft.sentences]
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """Whether so many lines begin with a dash or an asterisk."""
        stars = re.findall(r"^\s*\*[^\*].*$", answer, re.MULTILINE)
        dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
        return len(stars) + len(dashes) == self.count


@dataclass(frozen=True)
class NumberedList(Constraint):
    """Write a numbered list of an exact length."""

    kind = "numbered list"
    parts = frozenset({"length", "layout", "start"})
    phrasings = Phrasings(
        train=(
            *orders(
                "write a numbered list of {count} points",
                "answer with a numbered list of {count} items",
                "use a list with numbers from 1 to {count}",
                "number your points from 1 to {count}",
                "make a numbered list with {count} lines",
                "reply in a numbered list of {count}",
            ),
            "Your answer should be a numbered list of {count} items",
            "Format: numbered list with {count} items",
            "I need a numbered list of {count} points",
            "A numbered list from 1 to {count}",
        ),
        held_out=(
            "Arrange the text as a numbered list that has {count} entries",
            "The response is to be a list of {count} items, numbered from 1",
        ),
    )
    count: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """Two to four items."""
        return cls(brief.sampler.number(2, 4))

    @property
    def num_sentences(self) -> int:
        """A sentence for each item."""
        return self.count

    def shape(self, draft: Draft) -> None:
        """One sentence a line, each behind its number."""
        draft.sentences = [f"{number}. {sentence}" for number, sentence in enumerate(draft.sentences, 1)]
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """Whether the lines that begin with a number count from 1 to the length asked for."""
        numbers = re.findall(r"^\s*(\d+)[.)]\s", answer, re.MULTILINE)
        return numbers == [str(number) for number in range(1, self.count + 1)]


@dataclass(frozen=True)
class Paragraphs(Constraint):
    """Write an exact number of paragraphs with `***` between them."""

    kind = "paragraphs"
    parts = frozenset({"length", "layout"})
    phrasings = Phrasings(
        train=(
            *orders(
                "write {count} paragraphs with *** between them",
                "use {count} paragraphs and separate them with ***",
                "answer in {count} paragraphs divided by ***",
                "put *** between your {count} paragraphs",
                "give me {count} paragraphs with the divider ***",
            ),
            "Your answer should have {count} paragraphs with *** between them",
            "Format: {count} paragraphs with the divider ***",
            "I need {count} paragraphs, separated by ***",
            "The paragraphs are separated with ***. Write {count} of them",
        ),
        held_out=(
            "Split the text into {count} paragraphs by means of ***",
            "There should be {count} paragraphs, parted by the markdown divider ***",
        ),
    )
    count: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """Two or three paragraphs."""
        return cls(brief.sampler.number(2, 3))

    @property
    def num_sentences(self) -> int:
        """A sentence for each paragraph."""
        return self.count

    def shape(self, draft: Draft) -> None:
        """A divider between the sentences."""
        draft.separator = "\n***\n"

    def check(self, answer: str) -> bool:
        """Whether the dividers part so many paragraphs, none of them empty but for the ends."""
        paragraphs = [paragraph.strip() for paragraph in re.split(r"\s?\*\*\*\s?", answer)]
        return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == self.count


@dataclass(frozen=True)
class Highlights(Constraint):
    """Highlight parts of the answer with asterisks."""

    kind = "highlights"
    parts = frozenset({"marks", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "highlight at least {number} with asterisks, like *this*",
                "mark at least {number} with *asterisks*",
                "put at least {number} between asterisks",
                "highlight {number} in *this way*",
                "use *asterisks* to highlight {number}",
            ),
            "Your answer should have at least {number} in *asterisks*",
            "At least {number} must be highlighted, like *this part*",
            "Highlighted: {number} or more, like *these words*",
        ),
        held_out=(
            "Emphasise no fewer than {number} with asterisks, such as *example*",
            "I want to see {number} or more that are highlighted as *so*",
        ),
    )
    count: int

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """One to three parts."""
        return cls(brief.sampler.number(1, 3))

    @property
    def num_sentences(self) -> int:
        """A sentence for each part, and two at least."""
        return max(2, self.count)

    @property
    def slots(self) -> dict[str, object]:
        """The number as a word, with its unit."""
        return {"number": _counted(self.count, "part")}

    def shape(self, draft: Draft) -> None:
        """Highlight the first two words of as many sentences as are asked for."""
        for index in range(self.count):
            first, second, rest = draft.sentences[index].split(" ", 2)
            draft.sentences[index] = f"*{first} {second}* {rest}"

    def check(self, answer: str) -> bool:
        """Whether there are so many highlighted parts or more."""
        single = re.findall(r"\*[^\n\*]*\*", answer)
        double = re.findall(r"\*\*[^\n\*]*\*\*", answer)
        return sum(bool(part.strip("*").strip()) for part in single + double) >= self.count


@dataclass(frozen=True)
class Title(Constraint):
    """Give the answer a title in double angle brackets."""

    kind = "title"
    parts = frozenset({"start"})
    phrasings = Phrasings(
        train=(
            *orders(
                "give it a title in double angle brackets, like <<title>>",
                "start with a title in << and >>",
                "add a title, written as <<title>>",
                "put a title in << >> on top",
                "write a title such as <<my title>> first",
            ),
            "Your answer must have a title in double angle brackets, such as <<the title>>",
            "The answer needs a title between << and >>",
            "It should have a title like <<this>>",
            "Title: in <<double angle brackets>>",
        ),
        held_out=(
            "The response must carry a heading wrapped in <<double angular brackets>>",
            "Do not forget a title of the form <<name of the text>>",
        ),
    )

    def shape(self, draft: Draft) -> None:
        """A title on the first line."""
        title = draft.brief.sampler.choice(("About {}", "All about {}", "A text about {}", "The story of {}"))
        draft.before = f"<<{title.format(draft.brief.topic.name)}>>\n"

    def check(self, answer: str) -> bool:
        """Whether there is a title that is not empty."""
        return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", answer))


@dataclass(frozen=True)
class StartPhrase(Constraint):
    """Begin with given words."""

    kind = "start phrase"
    parts = frozenset({"start"})
    phrasings = Phrasings(
        train=(
            *orders(
                'start your answer with "{opening}"',
                'start with the words "{opening}"',
                'begin with "{opening}"',
                'begin your answer with the words "{opening}"',
                'put "{opening}" at the start',
            ),
            'The first words must be "{opening}"',
            'Your answer should start with "{opening}"',
            'Your reply must begin with "{opening}"',
            'Start: "{opening}"',
            'First words: "{opening}"',
        ),
        held_out=(
            'Open the text with "{opening}"',
            'The very beginning of the response has to be "{opening}"',
        ),
    )
    opening: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """One to three ordinary words."""
        return cls(capitalise(" ".join(brief.sampler.words(brief.sampler.number(1, 3)))))

    def shape(self, draft: Draft) -> None:
        """The words, a colon, the answer."""
        draft.before = f"{self.opening}: "

    def check(self, answer: str) -> bool:
        """Whether the words come first, in small or capital letters."""
        return answer.strip().lower().startswith(self.opening.lower())


@dataclass(frozen=True)
class EndPhrase(Constraint):
    """End with an exact phrase and nothing after it."""

    kind = "end phrase"
    parts = frozenset({"end", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "end your answer with: {ending}",
                "end with the words: {ending}",
                "finish with: {ending}",
                "finish your answer with this sentence: {ending}",
                "close with the phrase: {ending}",
                "put this at the end: {ending}",
            ),
            "The last words must be: {ending}",
            "Your answer should end with: {ending}",
            "Your reply must end with this exact phrase: {ending}",
            "Last sentence: {ending}",
        ),
        held_out=(
            "Conclude the text with exactly: {ending}",
            "Nothing may follow this final sentence: {ending}",
        ),
    )
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
    ending: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """A sentence with one or two ordinary words in it."""
        frame = brief.sampler.choice(cls.endings.held_out if brief.sampler.held_out else cls.endings.train)
        return cls(frame.format(" ".join(brief.sampler.words(brief.sampler.number(1, 2)))))

    def shape(self, draft: Draft) -> None:
        """The phrase behind the last sentence."""
        draft.after = f" {self.ending}"

    def check(self, answer: str) -> bool:
        """Whether the phrase comes last, in small or capital letters."""
        return answer.strip().strip('"').lower().endswith(self.ending.lower())


@dataclass(frozen=True)
class Postscript(Constraint):
    """Add a postscript."""

    kind = "postscript"
    parts = frozenset({"end", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "add a postscript that starts with {marker}",
                "add a postscript with {marker} at the end",
                "finish with a postscript: {marker}",
                "put a note that begins with {marker} at the end",
                "write a postscript ({marker}) after the answer",
            ),
            "Your answer should end with a postscript that starts with {marker}",
            "There must be a postscript, {marker}",
            "The postscript begins with {marker}",
            "I need a {marker} at the end",
        ),
        held_out=(
            "Append a postscript to the text, marked {marker}",
            "The response needs a last remark introduced by {marker}",
        ),
    )
    remarks: ClassVar[tuple[str, ...]] = (
        "I like {}.",
        "Ask me about {} again.",
        "There is more to say about {}.",
        "Tell your friends about {}.",
    )
    marker: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """Either of the usual marks."""
        return cls(brief.sampler.choice(("P.S.", "P.S.", "P.P.S")))

    def shape(self, draft: Draft) -> None:
        """A remark on a line of its own."""
        remark = draft.brief.sampler.choice(self.remarks).format(draft.brief.topic.name)
        draft.after = f"\n{self.marker} {remark}"

    def check(self, answer: str) -> bool:
        """Whether the mark occurs, in small or capital letters, spaced or not."""
        pattern = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}[self.marker]
        return bool(re.search(pattern, answer.lower()))


@dataclass(frozen=True)
class RepeatRequest(Constraint):
    """Repeat the request before the answer."""

    kind = "repeat the request"
    parts = frozenset({"start", "length"})
    phrasings = Phrasings(
        train=(
            *orders(
                "first repeat my request word for word, then answer it",
                "repeat the request first, then answer",
                "repeat my request before you answer",
                "say my request again, then give your answer",
                "copy the request and then answer it",
            ),
            "Before you answer, repeat my request without this sentence",
            "Your answer should start with my request, word for word",
            "Your reply must repeat the request first",
            "The request comes first, then the answer",
        ),
        held_out=(
            "Restate the request without any change ahead of the answer",
            "The response has to begin with a copy of the request itself",
        ),
    )
    request: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """The request is what asks about the topic, without any constraint."""
        return cls(brief.request)

    def shape(self, draft: Draft) -> None:
        """The request on the first line."""
        draft.before = f"{self.request}\n"

    def check(self, answer: str) -> bool:
        """Whether the request comes first, in small or capital letters."""
        return answer.strip().lower().startswith(self.request.strip().lower())


@dataclass(frozen=True)
class NoCommas(Constraint):
    """Use no commas."""

    kind = "no commas"
    parts = frozenset({"commas"})
    phrasings = Phrasings(
        train=(
            *orders(
                "use no commas",
                "write without commas",
                "avoid commas",
                "avoid commas in your answer",
                "leave out all commas",
            ),
            "Don't use any commas",
            "Do not use commas",
            "No commas please",
            "Your answer must not contain commas",
            "Commas are not allowed",
            "Your reply should have no commas",
        ),
        held_out=(
            "Commas are forbidden anywhere in the text",
            "The response must be free of commas",
        ),
    )

    def polish(self, text: str) -> str:
        """Drop them."""
        return text.replace(",", "")

    def check(self, answer: str) -> bool:
        """Whether there is none."""
        return "," not in answer


@dataclass(frozen=True)
class Lowercase(Constraint):
    """Write in small letters only."""

    kind = "all lower case"
    parts = frozenset({"case"})
    phrasings = Phrasings(
        train=(
            *orders(
                "use only small letters",
                "write in all lower case",
                "answer in lower case letters",
                "write everything in lowercase",
                "use lowercase letters only",
                "avoid capital letters",
                "write without capital letters",
            ),
            "Do not use capital letters",
            "No capital letters",
            "All letters must be lower case",
            "Your answer should be in all lowercase letters",
            "Your reply must be in small letters",
        ),
        held_out=(
            "The entire text should be in lowercase; no capital letters are allowed",
            "Keep every letter of the response in lower case",
        ),
    )

    def polish(self, text: str) -> str:
        """Lower every letter."""
        return text.lower()

    def check(self, answer: str) -> bool:
        """Whether no letter is a capital."""
        return answer.islower()


@dataclass(frozen=True)
class Uppercase(Constraint):
    """Write in capital letters only."""

    kind = "all capitals"
    parts = frozenset({"case"})
    phrasings = Phrasings(
        train=(
            *orders(
                "use only capital letters",
                "write in all capitals",
                "answer in capital letters",
                "write everything in upper case",
                "use uppercase letters only",
                "write in ALL CAPS",
            ),
            "ALL CAPS please",
            "All letters must be capital letters",
            "Your answer should be in all uppercase letters",
            "Your reply must be in capitals",
            "Everything in capital letters",
        ),
        held_out=(
            "The entire text should be in uppercase, in capital letters alone",
            "Turn every letter of the response into a capital letter",
        ),
    )

    def polish(self, text: str) -> str:
        """Raise every letter."""
        return text.upper()

    def check(self, answer: str) -> bool:
        """Whether every letter is a capital."""
        return answer.isupper()


@dataclass(frozen=True)
class Quotation(Constraint):
    """Wrap the answer in double quotation marks."""

    kind = "quotation marks"
    parts = frozenset({"start", "end", "quotes"})
    phrasings = Phrasings(
        train=(
            *orders(
                "put your answer in double quotation marks",
                "wrap your answer in quotation marks",
                "wrap the whole answer in double quotes",
                "quote your whole answer with double quotes",
                "use quotation marks around the answer",
                "write the answer inside quotation marks",
            ),
            'Your answer should start and end with "',
            "Your reply must be inside double quotation marks",
            "Double quotation marks around the whole answer",
            "The answer goes between quotation marks",
        ),
        held_out=(
            "The entire text is to be enclosed by double quotation marks",
            "Surround the response with quotation marks on both sides",
        ),
    )

    def polish(self, text: str) -> str:
        """One mark in front, one behind."""
        return f'"{text}"'

    def check(self, answer: str) -> bool:
        """Whether the first and the last character are marks."""
        answer = answer.strip()
        return len(answer) > 1 and answer[0] == '"' and answer[-1] == '"'


@dataclass(frozen=True)
class Json(Constraint):
    """Answer with a JSON object that has a given key."""

    kind = "JSON with a key"
    parts = frozenset({"start", "end", "layout", "case", "quotes"})
    phrasings = Phrasings(
        train=(
            *orders(
                'answer in JSON with the key "{key}"',
                'write your answer as JSON with the key "{key}"',
                'use JSON format with the key "{key}"',
                'give me JSON that has the key "{key}"',
                'reply in JSON. The key is "{key}"',
                'put the answer into JSON under "{key}"',
            ),
            'Format: JSON with one key, "{key}"',
            'Your answer should be JSON with the key "{key}"',
            'The output must be JSON. Key: "{key}"',
            'I need JSON with "{key}" as the key',
        ),
        held_out=(
            'The response must be a JSON object holding "{key}" as its key',
            'Wrap the entire output in JSON format under the key "{key}"',
        ),
    )
    key: str

    @classmethod
    def sample(cls, brief: Brief) -> Self:
        """An ordinary word."""
        return cls(brief.sampler.word())

    def polish(self, text: str) -> str:
        """An object of one key."""
        return json.dumps({self.key: text}, ensure_ascii=False)

    def check(self, answer: str) -> bool:
        """Whether the answer, in a code fence or not, is a JSON object that has the key."""
        answer = answer.strip()
        for fence in ("```json", "```Json", "```JSON", "```"):
            answer = answer.removeprefix(fence)
        try:
            value = json.loads(answer.removesuffix("```"))
        except ValueError:
            return False
        return isinstance(value, dict) and self.key in value


MENTIONS = (
    "It makes me think of {}.",
    "It goes well with {}.",
    "I also like {}.",
    "Another story is about {}.",
    "Next to it there is {}.",
    "There is also {}.",
    "People also talk about {}.",
)
"""Sentences that have room for any words."""

KINDS: tuple[type[Constraint], ...] = (
    Keywords,
    Frequency,
    Forbidden,
    Sentences,
    MaxWords,
    Bullets,
    NumberedList,
    Paragraphs,
    Highlights,
    Title,
    StartPhrase,
    EndPhrase,
    Postscript,
    RepeatRequest,
    NoCommas,
    Lowercase,
    Uppercase,
    Json,
    Quotation,
)
"""Every kind, in the order in which an answer is polished."""


def count_sentences(text: str) -> int:
    """Number of sentences: stretches of text that end in `.`, `!` or `?` before white space or the end."""
    return sum(any(map(str.isalnum, piece)) for piece in re.split(r"(?<=[.!?])\s+", text))


def _listed(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a and b and c`: no commas, for some answers must have none."""
    return " and ".join(words)


def _counted(count: int, unit: str) -> str:
    number = ("one", "two", "three", "four")[count - 1]
    return f"{number} {unit}" if count == 1 else f"{number} {unit}s"
