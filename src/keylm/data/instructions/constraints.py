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


def statements(*predicates: str) -> tuple[str, ...]:
    """What is said of the answer, by several names for it."""
    strict = ("your answer must {}", "your response must {}", "the text must {}")
    forms = (*strict, "the answer should {}", "the response should {}", "the whole text should {}")
    return tuple(form.replace("{}", predicate) for predicate in predicates for form in forms)


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
                "work {words} into your answer",
                "work {words} in",
                "let {words} appear somewhere in the text",
                "have {words} in what you write",
                "add {words} somewhere",
                "write a text in which I can find {words}",
                "be sure to use {words}",
            ),
            *statements(
                "contain {words}",
                "include {words}",
                "have {words} in it",
                "mention {words} at some point",
            ),
            "Your answer must contain {words}",
            "The answer must have {words} in it",
            "Your reply should contain {words}",
            "Do not forget to use {words}",
            "I want to see {words} in the answer",
            "It is required that you use {words}",
            "It is required that {words} appear",
            "Be sure that I can find {words} in it",
            "Be sure that {words} can be found",
            "You write with {words} in it",
            "Required: {words}",
            "Keywords: {words}",
            "What you write has to include {words}",
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
                "use the word {word} {often}",
                "use the word {word} no fewer than {times} times",
                "let the word {word} occur {times} times or more",
                "let me see the word {word} {often}",
                "have the word {word} in the text no less than {times} times",
                "make the word {word} occur {often}",
                "repeat the word {word}, {times} times at least",
            ),
            *statements(
                "contain the word {word} at least {often}",
                "have the word {word} in it no fewer than {times} times",
                "use {word} {often} or more",
            ),
            "The word {word} should appear at least {times} times",
            "Your answer must contain the word {word} {times} times or more",
            "The word {word} has to be in the reply {times} times",
            "I should see the word {word} {times} times",
            "I want to see the word {word} at least {often}",
            "No fewer than {times} times you should say {word}",
            "No less than {times} times: the word {word}",
            "The word {word} must occur {often}",
            "Let it be {times} times or more that you use the word {word}",
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

    @property
    def slots(self) -> dict[str, object]:
        """The word, and how often as a digit and in words."""
        often = "twice" if self.times == 2 else f"{NUMBERS[self.times]} times"
        return {"word": self.word, "times": self.times, "often": often}

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
                "refrain from saying {word}",
                "refrain from the word {word}",
                "keep from using the word {word}",
                "stay away from the word {word}",
                "skip the word {word}",
                "keep the word {word} out of your answer",
                "answer without using the word {word} anywhere",
                "never mention the word {word}",
            ),
            *statements(
                "not mention the word {word} at all",
                "not use the word {word} anywhere",
                "not contain the word {word}",
                "leave out the word {word}",
            ),
            "The word {word} is not allowed",
            "The word {word} must not be in your answer",
            "Your reply must not contain the word {word}",
            "Don't use the word {word}",
            "Do not use the word {word}",
            "Never say {word}",
            "Don't mention {word} anywhere",
            "Do not mention the word {word}",
            "The word {word} is forbidden",
            "Nowhere should you mention the word {word}",
            "No {word} anywhere, please",
            "Forbidden: {word}",
            "The answer must not have the word {word} in it",
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
                "respond in {number}",
                "respond with exactly {number}",
                "respond using {digits}",
                "write {digits}",
                "answer in exactly {digits}",
                "give me a text of {number}",
                "write {number}, not more and not less",
                "stop after {number}",
                "make the text {number} long",
            ),
            *statements(
                "be {number} long",
                "consist of {number}",
                "be made up of {number}",
                "have exactly {digits}",
                "be a text of {number}",
            ),
            "Your answer should have {number}",
            "Your reply must be {number} long",
            "Length: {number}",
            "{number} only",
            "I need exactly {number}",
            "The text is made of {number}",
            "{digits}, please",
            "Exactly {digits}",
            "{number}, no more",
            "{number}, no less and no more",
            "No more and no fewer than {number}",
            "There should be {number} in your answer",
            "Text of {number}",
            "Number of sentences: {count}",
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
        """The number as a word and as a digit, with its unit."""
        return {"count": self.count, **_counts(self.count, "sentence")}

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
                "keep within {limit} words",
                "stay under a limit of {limit} words",
                "stay below the limit of {limit} words",
                "stay at {limit} words or less",
                "write up to {limit} words",
                "use up to {limit} words, not more",
                "stop before you have more than {limit} words",
                "be brief and stay at or under {limit} words",
            ),
            *statements(
                "have at most {limit} words",
                "be within {limit} words",
                "not have more than {limit} words",
                "be no longer than {limit} words",
            ),
            "Your answer must not be longer than {limit} words",
            "Maximum: {limit} words",
            "The limit is {limit} words",
            "Not more than {limit} words",
            "At most {limit} words",
            "You may use up to {limit} words",
            "The text may be up to {limit} words long",
            "It may have {limit} words or less",
            "Upper bound: {limit} words",
            "Word limit: {limit}",
            "Up to {limit} words for the whole text",
            "Within {limit} words, please",
            "You have {limit} words, no more",
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
                "structure your answer as {number}",
                "structure it in {number}",
                "structure the text with {digits}",
                "write {digits}",
                "respond with {number}",
                "write {number}, one on each line",
                "give {number}, each on a line of its own",
                "put each point on its own line, with {number} in all",
                "turn the text into {number}",
                "arrange the answer as {number}",
            ),
            *statements(
                "have {number}",
                "contain exactly {digits}",
                "be {number}, each on a new line",
                "be a list of {number}",
            ),
            "Your answer should have {number}",
            "Your reply must contain exactly {number}",
            "Format: {number}",
            "I need {number}",
            "A list of {number}",
            "There must be {number}",
            "There should be {digits} in the text",
            "The text is structured as {number}",
            "In the response there must be {number}",
            "Structure: {number}",
            "Exactly {digits}",
            "Each point on its own line: {number}",
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
        """The number as a word and as a digit, with its unit."""
        return _counts(self.count, "bullet point")

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
                "arrange your answer as a numbered list with {count} entries",
                "arrange {spelled} entries in a numbered list",
                "arrange the text in {count} numbered items",
                "write {spelled} items and number them",
                "list {count} items with numbers",
                "write {count} entries, numbered from 1 to {count}",
                "give a list of {spelled} items that are numbered",
                "structure your text as a numbered list of {count} items",
                "write a list that has {spelled} numbered entries",
            ),
            *statements(
                "be a numbered list of {count} items",
                "be a list of {spelled} items with numbers",
                "have {count} entries, numbered from 1",
                "be a numbered list that has {spelled} entries",
            ),
            "Your answer should be a numbered list of {count} items",
            "Format: numbered list with {count} items",
            "I need a numbered list of {count} points",
            "A numbered list from 1 to {count}",
            "Numbered list: {count} entries",
            "The text is a numbered list of {spelled} points",
            "A list of {count} items, numbered 1 to {count}",
            "The response is a list with {count} numbered items",
            "The list is to be numbered from 1 and has {count} items",
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

    @property
    def slots(self) -> dict[str, object]:
        """The number as a digit and as a word."""
        return {"count": self.count, "spelled": NUMBERS[self.count]}

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
                "split your answer into {count} paragraphs with ***",
                "split the text with *** into {spelled} paragraphs",
                "write {spelled} paragraphs and part them by ***",
                "use the markdown divider *** to make {count} paragraphs",
                "by means of *** make {count} paragraphs",
                "divide the text into {spelled} paragraphs with the markdown divider ***",
                "write {count} paragraphs that are parted by ***",
                "break the text into {count} paragraphs by ***",
                "write {spelled} paragraphs, separated by the markdown divider: ***",
            ),
            *statements(
                "have {count} paragraphs, divided by ***",
                "be split into {spelled} paragraphs by ***",
                "consist of {count} paragraphs that *** parts",
                "have {spelled} paragraphs with the markdown divider *** between them",
            ),
            "Your answer should have {count} paragraphs with *** between them",
            "Format: {count} paragraphs with the divider ***",
            "I need {count} paragraphs, separated by ***",
            "The paragraphs are separated with ***. Write {count} of them",
            "There should be {count} paragraphs with *** between them",
            "There should be {spelled} paragraphs. Use the markdown divider ***",
            "There are {count} paragraphs, parted with ***",
            "Paragraphs: {count}, split by ***",
            "The divider *** stands between the {spelled} paragraphs",
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

    @property
    def slots(self) -> dict[str, object]:
        """The number as a digit and as a word."""
        return {"count": self.count, "spelled": NUMBERS[self.count]}

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
                "emphasise {number} with asterisks",
                "emphasise at least {digits}, such as *this*",
                "highlight no fewer than {number}, for example *this one*",
                "put {number} in italics with asterisks",
                "have no fewer than {number} in asterisks, such as *this one*",
                "highlight {digits} or more with markdown, as in *example*",
                "emphasise {number} or more, as *here*",
                "let me see at least {number} highlighted as *this*",
                "mark {digits} in italics, like *so*",
            ),
            *statements(
                "have {number} or more highlighted with asterisks, such as *these words*",
                "highlight at least {digits} as *this*",
                "emphasise {number} with *asterisks*",
                "have no fewer than {number} that are highlighted, like *so*",
            ),
            "Your answer should have at least {number} in *asterisks*",
            "At least {number} must be highlighted, like *this part*",
            "Highlighted: {number} or more, like *these words*",
            "I want to see at least {number} in *asterisks*",
            "I want {number} or more highlighted, such as *this*",
            "No fewer than {number} should be emphasised with asterisks",
            "Emphasis: {number}, such as *example*",
            "There should be {digits} that are highlighted, as in *example*",
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
        """The number as a word and as a digit, with its unit."""
        return _counts(self.count, "part")

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
                "give it a heading in <<double angle brackets>>",
                "wrap a title in double angular brackets, like <<heading>>",
                "write a heading of the form <<heading>>",
                "start with a heading wrapped in << and >>",
                "add a title of the form <<title>>",
                "put the name of the text in <<double angular brackets>> on top",
                "give the text a name, written as <<name>>",
                "make a title wrapped in <<double angle brackets>>",
            ),
            *statements(
                "carry a title in double angular brackets, like <<this>>",
                "have a heading wrapped in << and >>",
                "carry a heading of the form <<heading>>",
                "begin with a title such as <<name of it>>",
            ),
            "Your answer must have a title in double angle brackets, such as <<the title>>",
            "The answer needs a title between << and >>",
            "It should have a title like <<this>>",
            "Title: in <<double angle brackets>>",
            "Do not forget the title, like <<title>>",
            "Do not forget to write a heading in <<double angle brackets>>",
            "Don't forget a title in << and >>",
            "Heading: <<name>>",
            "Title of the form <<title>>",
            "The name of the text comes first, in <<double angular brackets>>",
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
                'open your answer with "{opening}"',
                'open with the words "{opening}"',
                'let the text open with "{opening}"',
                'write "{opening}" at the very beginning',
                'use "{opening}" as the very first words',
                'make "{opening}" the beginning of your response',
                'begin the text with "{opening}"',
                'start off with "{opening}"',
            ),
            *statements(
                'begin with "{opening}"',
                'open with "{opening}"',
                'have "{opening}" at its very beginning',
                'start with the words "{opening}"',
            ),
            'The first words must be "{opening}"',
            'Your answer should start with "{opening}"',
            'Your reply must begin with "{opening}"',
            'Start: "{opening}"',
            'First words: "{opening}"',
            'At the very beginning write "{opening}"',
            'The beginning has to be "{opening}"',
            'The beginning of the text: "{opening}"',
            'The very first words have to be "{opening}"',
            'Open it with "{opening}"',
            'Opening: "{opening}"',
            'The text opens with "{opening}"',
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
                "conclude with: {ending}",
                "conclude your answer with exactly this: {ending}",
                "use this as the final sentence: {ending}",
                "let nothing follow these last words: {ending}",
                "stop after this final sentence: {ending}",
                "write nothing after this sentence: {ending}",
                "end the text with exactly these words: {ending}",
                "make this the final sentence of the text: {ending}",
            ),
            *statements(
                "end with exactly: {ending}",
                "conclude with these words: {ending}",
                "have this as its final sentence: {ending}",
                "close with: {ending}",
            ),
            "The last words must be: {ending}",
            "Your answer should end with: {ending}",
            "Your reply must end with this exact phrase: {ending}",
            "Last sentence: {ending}",
            "Final sentence: {ending}",
            "The final sentence has to be: {ending}",
            "Nothing comes after this: {ending}",
            "Nothing may come after the final words: {ending}",
            "No words may follow this: {ending}",
            "The text concludes with: {ending}",
            "Final words: {ending}",
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
                "append a postscript marked {marker}",
                "append a note to your answer, starting with {marker}",
                "add a last remark, introduced by {marker}",
                "introduce a last remark with {marker}",
                "add an afterthought that starts with {marker}",
                "close with a remark that is marked {marker}",
                "append {marker} to the text and one more remark",
                "finish the text with a remark introduced with {marker}",
            ),
            *statements(
                "have a postscript marked {marker}",
                "end with a last remark after {marker}",
                "have a remark at the end, introduced with {marker}",
                "close with a postscript, {marker}",
            ),
            "Your answer should end with a postscript that starts with {marker}",
            "There must be a postscript, {marker}",
            "The postscript begins with {marker}",
            "I need a {marker} at the end",
            "The response needs a postscript with {marker}",
            "It needs a last remark that begins with {marker}",
            "The text needs a {marker} at the end",
            "Last remark: {marker}",
            "A postscript is needed, marked with {marker}",
            "Don't forget the {marker}",
            "The last line is a remark introduced with {marker}",
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
                "restate my request first, then answer it",
                "restate the request word for word before the answer",
                "repeat the request without any change, then answer",
                "begin with a copy of my request",
                "give a copy of the request ahead of your answer",
                "write the request again without a change and then the answer",
                "copy my request ahead of the answer",
                "start with the request itself and then answer",
                "write down the unchanged request first",
            ),
            *statements(
                "begin with the request itself",
                "repeat the request without change before the answer",
                "restate the request, then answer it",
                "have the request ahead of the answer",
            ),
            "Before you answer, repeat my request without this sentence",
            "Your answer should start with my request, word for word",
            "Your reply must repeat the request first",
            "The request comes first, then the answer",
            "First a copy of the request, then the answer",
            "The request itself has to come first, without any change",
            "Ahead of the answer, restate my request",
            "The request, unchanged, stands ahead of the answer",
            "Change nothing in the request and repeat it first",
            "It has to begin with the request, word for word",
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
                "keep the text free of commas",
                "stay free of commas",
                "write a text that is free of any commas",
                "answer without any commas anywhere",
                "refrain from commas",
                "write without a single comma",
                "skip the commas",
                "keep commas out of the response",
            ),
            *statements(
                "have no commas anywhere",
                "not contain any commas",
                "be without commas",
                "not have a single comma",
                "avoid commas",
            ),
            "Don't use any commas",
            "Do not use commas",
            "No commas please",
            "Your answer must not contain commas",
            "Commas are not allowed",
            "Your reply should have no commas",
            "Commas are forbidden",
            "Commas are forbidden in your answer",
            "All commas are forbidden here",
            "No commas anywhere in the text",
            "No comma anywhere",
            "I want it free of commas",
            "Any comma is forbidden",
            "Commas: none",
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
                "keep every letter small",
                "keep the entire text in lowercase",
                "keep the response in lowercase",
                "write every letter in lower case",
                "write the entire answer in small letters",
                "make every letter of the answer lowercase",
                "turn all letters into lower case",
            ),
            *statements(
                "be entirely in lowercase",
                "be in lower case",
                "have no capital letters",
                "be in lowercase letters only",
            ),
            "Do not use capital letters",
            "No capital letters",
            "All letters must be lower case",
            "Your answer should be in all lowercase letters",
            "Your reply must be in small letters",
            "No capital letters are allowed",
            "Capital letters are not allowed",
            "The entire answer should be in small letters",
            "The entire response in lowercase",
            "Every letter should be in lowercase",
            "lowercase only",
            "Case: lower",
            "Every letter small please",
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
                "turn all letters into capital letters",
                "turn the text into uppercase",
                "write the entire text in uppercase",
                "use capital letters alone",
                "write every letter of the answer as a capital letter",
                "make every letter of the text a capital",
                "keep the entire response in upper case",
                "answer in uppercase alone",
            ),
            *statements(
                "be entirely in uppercase",
                "be in capital letters",
                "be in capital letters alone",
                "have capital letters only",
            ),
            "ALL CAPS please",
            "All letters must be capital letters",
            "Your answer should be in all uppercase letters",
            "Your reply must be in capitals",
            "Everything in capital letters",
            "The entire answer should be in capitals",
            "The entire response in uppercase",
            "Every letter should be a capital letter",
            "Every letter in uppercase",
            "uppercase only",
            "Case: upper",
            "Capital letters alone are allowed",
            "No small letters",
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
                "surround your answer with quotation marks",
                "surround the text with double quotation marks",
                "enclose your answer in double quotation marks",
                "enclose the entire text in quotation marks",
                "put quotation marks on both sides of the answer",
                "put double quotation marks at both ends of the response",
                "wrap the entire response with double quotation marks",
                "have double quotes on both sides of the text",
            ),
            *statements(
                "be enclosed in double quotation marks",
                "be surrounded by double quotation marks",
                "be wrapped in quotation marks on both ends",
                "stand between double quotes",
                "have quotation marks on both sides",
            ),
            'Your answer should start and end with "',
            "Your reply must be inside double quotation marks",
            "Double quotation marks around the whole answer",
            "The answer goes between quotation marks",
            "The entire answer is to be in quotation marks",
            "The entire response is enclosed in double quotes",
            "Quotation marks surround the text",
            "Quotation marks on both sides, please",
            "On both sides of the text there are double quotation marks",
            "Double quotes on both ends",
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
                'wrap your answer in JSON with the key "{key}"',
                'wrap the entire answer in a JSON object under "{key}"',
                'write a JSON object with "{key}" as its key',
                'give a JSON object that holds the text under the key "{key}"',
                'put the entire text in JSON format with the key "{key}"',
                'output JSON format only, under the key "{key}"',
                'make the response a JSON object with the key "{key}"',
                'respond in JSON format, holding the text under "{key}"',
            ),
            *statements(
                'be JSON holding "{key}" as a key',
                'be in JSON format with "{key}" as its key',
                'be wrapped in JSON under the key "{key}"',
            ),
            'Format: JSON with one key, "{key}"',
            'Your answer should be JSON with the key "{key}"',
            'The output must be JSON. Key: "{key}"',
            'I need JSON with "{key}" as the key',
            'The entire output is JSON with the key "{key}"',
            'Output: a JSON object, key "{key}"',
            'The response is a JSON object that has "{key}" as its key',
            'JSON format, holding the key "{key}"',
            'A JSON object under the key "{key}", please',
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

NUMBERS = ("no", "one", "two", "three", "four")
"""Numbers as words."""

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


def _counts(count: int, unit: str) -> dict[str, object]:
    units = unit if count == 1 else f"{unit}s"
    return {"number": f"{NUMBERS[count]} {units}", "digits": f"{count} {units}"}
