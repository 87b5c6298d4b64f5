"""Kinds about the layout of an answer: lists, paragraphs, sections, tables, marks, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Counted, Draft
from keylm.instructions.constraints.violations import change_one
from keylm.instructions.sampler import Sampler, capitalise


@dataclass(frozen=True)
class _Parts(Counted):
    """Base of the kinds that make so many parts of an answer."""

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Of a real answer, no more parts than it has sentences."""
        return cls(brief.number(*cls.counts))

    @property
    def num_sentences(self) -> int:
        """A sentence for each part."""
        return self.count


@dataclass(frozen=True)
class Bullets(_Parts):
    """Write an exact number of bullet points."""

    kind = "bullet points"
    parts = frozenset({"length", "layout", "start"})
    counts = (2, 4)
    unit = "bullet point"

    def shape(self, draft: Draft) -> None:
        """One sentence a line, each behind a dash."""
        draft.gather(self.count, "\n")
        draft.sentences = [f"- {sentence}" for sentence in draft.sentences]

    def check(self, answer: str) -> bool:
        """Whether so many lines begin with a dash or an asterisk."""
        stars = re.findall(r"^\s*\*[^\*].*$", answer, re.MULTILINE)
        dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
        return len(stars) + len(dashes) == self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One of the lines loses its dash."""
        return change_one(r"^\s*[-*] ", "", answer, sampler)


@dataclass(frozen=True)
class NumberedList(_Parts):
    """Write a numbered list of an exact length."""

    kind = "numbered list"
    parts = frozenset({"length", "layout", "start", "digits"})
    counts = (2, 4)

    def shape(self, draft: Draft) -> None:
        """One sentence a line, each behind its number."""
        draft.gather(self.count, "\n")
        draft.sentences = [f"{number}. {sentence}" for number, sentence in enumerate(draft.sentences, 1)]

    def check(self, answer: str) -> bool:
        """Whether the lines that begin with a number count from 1 to the length asked for."""
        numbers = re.findall(r"^\s*(\d+)[.)]\s", answer, re.MULTILINE)
        return numbers == [str(number) for number in range(1, self.count + 1)]

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One of the lines loses its number."""
        return change_one(r"^\d+[.)] ", "", answer, sampler)


@dataclass(frozen=True)
class Paragraphs(_Parts):
    """Write an exact number of paragraphs with `***` between them."""

    kind = "paragraphs"
    parts = frozenset({"length", "layout"})
    counts = (2, 3)

    def shape(self, draft: Draft) -> None:
        """A divider between the sentences."""
        draft.gather(self.count, "\n***\n")

    def check(self, answer: str) -> bool:
        """Whether the dividers part so many paragraphs, none of them empty but for the ends."""
        paragraphs = [paragraph.strip() for paragraph in re.split(r"\s?\*\*\*\s?", answer)]
        return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One divider is missing."""
        return change_one(r"\n\*\*\*\n", "\n", answer, sampler)


@dataclass(frozen=True)
class Title(Constraint):
    """Give the answer a title in double angle brackets."""

    kind = "title"
    parts = frozenset({"start"})

    def shape(self, draft: Draft) -> None:
        """A title on the first line."""
        title = draft.brief.sampler.choice(("About {}", "All about {}", "A text about {}", "The story of {}"))
        draft.before = f"<<{title.format(draft.brief.subject)}>>\n"

    def check(self, answer: str) -> bool:
        """Whether there is a title that is not empty."""
        return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", answer))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The brackets go, or half of them."""
        return re.sub(r"<<([^\n]+)>>", sampler.choice((r"\1", r"<\1>")), answer)


@dataclass(frozen=True)
class Highlights(_Parts):
    """Highlight parts of the answer with asterisks."""

    kind = "highlights"
    parts = frozenset({"marks", "length"})
    counts = (1, 3)
    unit = "part"

    @property
    def num_sentences(self) -> int:
        """A sentence for each part, and two at least."""
        return max(2, self.count)

    def shape(self, draft: Draft) -> None:
        """Highlight the first two words of as many sentences as are asked for."""
        for index in range(self.count):
            draft.sentences[index] = re.sub(r"^(\S+ \S+)(?= )", r"*\1*", draft.sentences[index])

    def check(self, answer: str) -> bool:
        """Whether there are so many highlighted parts or more."""
        single = re.findall(r"\*[^\n\*]*\*", answer)
        double = re.findall(r"\*\*[^\n\*]*\*\*", answer)
        return sum(bool(part.strip("*").strip()) for part in single + double) >= self.count

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """The asterisks go."""
        return re.sub(r"\*([^\n*]+)\*", r"\1", answer)


@dataclass(frozen=True)
class Json(Constraint):
    """Answer with a JSON object that has a given key."""

    kind = "JSON with a key"
    parts = frozenset({"start", "end", "layout", "case", "quotes"})
    key: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
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

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another key, or no JSON."""
        text: str = json.loads(answer)[self.key]
        return sampler.choice((json.dumps({sampler.word(): text}, ensure_ascii=False), text))


@dataclass(frozen=True)
class Sections(_Parts):
    """Write at least so many sections, each under its name and number."""

    kind = "sections"
    parts = frozenset({"length", "layout", "start", "digits", "case"})
    counts = (2, 3)
    name: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Sections by one of the usual names."""
        name = brief.sampler.choice(("Section", "SECTION", "Part", "Chapter", "Day"))
        return cls(brief.number(*cls.counts), name)

    def shape(self, draft: Draft) -> None:
        """A line with name and number above each part."""
        draft.gather(self.count, "\n")
        draft.sentences = [f"{self.name} {number}\n{text}" for number, text in enumerate(draft.sentences, 1)]

    def check(self, answer: str) -> bool:
        """Whether the name stands before a number often enough."""
        return len(re.findall(rf"{self.name}\s?\d+", answer)) >= self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One of the sections has no name."""
        return change_one(rf"^{self.name} \d+\n", "", answer, sampler)


@dataclass(frozen=True)
class BlankLines(_Parts):
    """Write an exact number of paragraphs with blank lines between them."""

    kind = "paragraphs by blank lines"
    parts = frozenset({"length", "layout"})
    counts = (2, 3)
    unit = "paragraph"

    def shape(self, draft: Draft) -> None:
        """A blank line between the sentences."""
        draft.gather(self.count, "\n\n")

    def check(self, answer: str) -> bool:
        """Whether blank lines part so many paragraphs."""
        return len(re.split(r"\n\s*\n", answer.strip())) == self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One blank line is missing."""
        return change_one(r"\n\n", "\n", answer, sampler)


@dataclass(frozen=True)
class FirstWordOfParagraph(_Parts):
    """Write paragraphs with blank lines between them, one of which begins with a given word."""

    kind = "first word of a paragraph"
    parts = frozenset({"length", "layout", "start"})
    suits_real = False
    counts = (2, 3)
    unit = "paragraph"
    position: int
    word: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the paragraphs, and an ordinary word."""
        count = brief.number(*cls.counts)
        return cls(count, brief.sampler.number(1, count), brief.sampler.word())

    @property
    def slots(self) -> dict[str, object]:
        """The numbers in words and digits, and the word."""
        return {**super().slots, "order": ("first", "second", "third")[self.position - 1]}

    def shape(self, draft: Draft) -> None:
        """A sentence that begins with the word, in front of the paragraph."""
        index = self.position - 1
        draft.gather(self.count, "\n\n")
        draft.sentences[index] = f"{capitalise(self.word)} comes to mind. {draft.sentences[index]}"

    def check(self, answer: str) -> bool:
        """Whether there are so many paragraphs, and one begins with the word, in small or capital letters."""
        paragraphs = answer.split("\n\n")
        if sum(bool(each.strip()) for each in paragraphs) != self.count:
            return False
        first, *_ = [*paragraphs[self.position - 1].split(), ""]
        return re.split(r"[.,?!'\"]", first.lstrip("'").lstrip('"').lower())[0] == self.word

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Another word in its place."""
        return re.sub(rf"\b{self.word} comes to mind", f"{sampler.word()} comes to mind", answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class OneSentencePerLine(Constraint):
    """Write each sentence on a line of its own."""

    kind = "one sentence a line"
    parts = frozenset({"layout", "length"})
    num_sentences = 3

    def shape(self, draft: Draft) -> None:
        """Line breaks between the sentences."""
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """Whether there are lines, and none holds the end of a sentence before its own end."""
        lines = [line for line in answer.splitlines() if line.strip()]
        return len(lines) > 1 and not any(re.search(r"[.!?]\s+\w", line) for line in lines)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Two sentences on one line."""
        return change_one(r"(?<=[.!?])\n(?=\w)", " ", answer, sampler)


@dataclass(frozen=True)
class Table(Counted):
    """Write a markdown table of so many columns."""

    kind = "table"
    parts = frozenset({"length", "layout", "start", "end", "digits"})
    counts = (2, 3)
    unit = "column"

    @property
    def num_sentences(self) -> int:
        """Two rows."""
        return 2 * (self.count - 1)

    def shape(self, draft: Draft) -> None:
        """Numbered rows, one sentence in each of the other cells."""
        width = self.count - 1
        rows = [draft.sentences[start : start + width] for start in range(0, len(draft.sentences), width)]
        names = ("No.", "Fact", "More")[: self.count]
        cells = [names, ["---"] * self.count]
        cells += [(str(number), *row, *[""] * (width - len(row))) for number, row in enumerate(rows, 1)]
        draft.sentences, draft.separator = [f"| {' | '.join(row)} |" for row in cells], "\n"

    def check(self, answer: str) -> bool:
        """Whether there is a head, a rule under it and a row at least, and every row has so many cells."""
        rows = [line.strip() for line in answer.splitlines() if line.strip().startswith("|")]
        return (
            len(rows) > 2
            and bool(re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", rows[1]))
            and all(row.endswith("|") and row.count("|") == self.count + 1 for row in rows)
        )

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The rule or a cell's border is missing."""
        return sampler.choice((re.sub(r"(\| ---)+ \|\n", "", answer), change_one(r"(?<=\w) \| ", " ", answer, sampler)))


@dataclass(frozen=True)
class CodeBlock(Constraint):
    """Put the whole answer into a fenced block."""

    kind = "fenced block"
    parts = frozenset({"start", "end"})

    def polish(self, text: str) -> str:
        """Three backticks above and below."""
        return f"```\n{text}\n```"

    def check(self, answer: str) -> bool:
        """Whether fences stand around everything."""
        return bool(re.fullmatch(r"```\w*\n(?:(?!```).)+\n```", answer.strip(), re.DOTALL))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Both fences are missing, or the last."""
        return answer[4:-4] if sampler.chance(0.5) else answer[:-4]


@dataclass(frozen=True)
class LineMark(Constraint):
    """Begin every line with a given mark."""

    kind = "mark on every line"
    parts = frozenset({"layout", "length", "start", "end"})
    mark: str
    num_sentences = 3

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Any of some marks."""
        return cls(brief.sampler.choice((">", ">>", "=>", "->", "~", "+", "|", "::")))

    def shape(self, draft: Draft) -> None:
        """One sentence a line, each behind the mark."""
        draft.sentences, draft.separator = [f"{self.mark} {each}" for each in draft.sentences], "\n"

    def check(self, answer: str) -> bool:
        """Whether there are lines, and every one begins with the mark."""
        lines = [line.strip() for line in answer.splitlines() if line.strip()]
        return bool(lines) and all(line.startswith(self.mark) for line in lines)

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One of the lines loses it."""
        return change_one(rf"^{re.escape(self.mark)} ", "", answer, sampler)


@dataclass(frozen=True)
class Separator(_Parts):
    """Write so many parts with a line of given marks between them."""

    kind = "marks between parts"
    parts = frozenset({"layout", "length"})
    counts = (2, 3)
    unit = "part"
    mark: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """Two or three parts; of a real answer, no more than it has sentences."""
        return cls(brief.number(*cls.counts), brief.sampler.choice(("~~~", "===", "+++", "---", "%%%", "###", "o o o")))

    def shape(self, draft: Draft) -> None:
        """The marks on lines of their own."""
        draft.gather(self.count, f"\n{self.mark}\n")

    def check(self, answer: str) -> bool:
        """Whether such lines make so many parts, none of them empty."""
        found = re.split(rf"^\s*{re.escape(self.mark)}\s*$", answer, flags=re.MULTILINE | re.IGNORECASE)
        return len(found) == self.count and all(map(str.strip, found))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """Other marks, or none, in the place of one."""
        return change_one(rf"^{re.escape(self.mark)}$", sampler.choice(("", "...")), answer, sampler)


@dataclass(frozen=True)
class Wrapped(Constraint):
    """Put given marks before and after the answer."""

    kind = "between marks"
    parts = frozenset({"start", "end", "layout"})
    pairs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("~", "~"),
        ("==", "=="),
        ("--", "--"),
        ("|", "|"),
        ("/", "/"),
        ("+++", "+++"),
        (">>", "<<"),
        (":::", ":::"),
    )
    first: str
    last: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the pairs."""
        return cls(*brief.sampler.choice(cls.pairs))

    def polish(self, text: str) -> str:
        """One mark in front, one behind."""
        return f"{self.first} {text} {self.last}"

    def check(self, answer: str) -> bool:
        """Whether the marks stand at the ends, with something between them."""
        inner = answer.strip().removeprefix(self.first).removesuffix(self.last)
        return bool(inner.strip()) and answer.strip() == f"{self.first}{inner}{self.last}"

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One mark is missing, or both."""
        inner = answer[len(self.first) : -len(self.last)].strip()
        return sampler.choice((inner, f"{self.first} {inner}", f"{inner} {self.last}"))


@dataclass(frozen=True)
class Tags(Constraint):
    """Put the whole answer between tags as of XML."""

    kind = "tags"
    parts = frozenset({"start", "end", "case"})
    tag: str

    @classmethod
    def sample(cls, brief: ConstraintContext) -> Self:
        """One of the usual names, or an ordinary word."""
        return cls(brief.sampler.choice(("answer", "text", "reply", brief.sampler.word())))

    def polish(self, text: str) -> str:
        """One tag in front, one behind."""
        return f"<{self.tag}>{text}</{self.tag}>"

    def check(self, answer: str) -> bool:
        """Whether both tags stand at the ends, once each."""
        first, last, answer = f"<{self.tag}>", f"</{self.tag}>", answer.strip()
        ends = answer.startswith(first) and answer.endswith(last)
        return ends and len(answer) > len(first + last) and answer.count(first) == answer.count(last) == 1

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """One tag is missing, or both have another name."""
        first, last, other = f"<{self.tag}>", f"</{self.tag}>", sampler.word()
        renamed = answer.replace(first, f"<{other}>").replace(last, f"</{other}>")
        return sampler.choice((answer.removesuffix(last), answer.removeprefix(first), renamed))


@dataclass(frozen=True)
class Placeholders(Counted):
    """Leave at least so many placeholders in square brackets."""

    kind = "placeholders"
    parts = frozenset({"length"})
    suits_real = False
    names = ("name", "date", "place", "address", "time", "price", "number", "title")
    counts = (1, 3)
    unit = "placeholder"

    @property
    def num_sentences(self) -> int:
        """A sentence about the topic and one for each placeholder."""
        return 1 + self.count

    def shape(self, draft: Draft) -> None:
        """A sentence for each."""
        frames = ("Please write down the [{}].", "Do you know the [{}]?", "The [{}] is still open.")
        names = draft.brief.sampler.rng.sample(self.names, self.count)
        draft.sentences[1:] = [frame.format(name) for frame, name in zip(frames, names, strict=False)]

    def check(self, answer: str) -> bool:
        """Whether there are enough."""
        return len(re.findall(r"\[.*?\]", answer)) >= self.count

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The brackets of one are missing."""
        return change_one(r"\[([^\n]*?)\]", r"\1", answer, sampler)


@dataclass(frozen=True)
class Bold(Constraint):
    """Write the subject, or the first words, in bold type."""

    kind = "bold words"
    parts = frozenset({"marks", "length"})

    def shape(self, draft: Draft) -> None:
        """Two asterisks around the first two words."""
        draft.sentences[0] = re.sub(r"^(\S+ \S+)(?= )", r"**\1**", draft.sentences[0])

    def check(self, answer: str) -> bool:
        """Whether anything is in bold type."""
        return bool(re.search(r"\*\*[^\s*][^\n*]*\*\*", answer))

    def spoil(self, answer: str, sampler: Sampler) -> str:
        """The asterisks go, or half of them."""
        return re.sub(r"\*\*([^\n*]+)\*\*", sampler.choice((r"\1", r"*\1*")), answer)


@dataclass(frozen=True)
class Heading(Constraint):
    """Begin with a markdown heading."""

    kind = "markdown heading"
    parts = frozenset({"start"})

    def shape(self, draft: Draft) -> None:
        """A heading on the first line."""
        draft.before = f"# {capitalise(draft.brief.subject)}\n"

    def check(self, answer: str) -> bool:
        """Whether the first line is a heading."""
        return bool(re.match(r"#{1,6} +\S", answer.strip()))

    def spoil(self, answer: str, _sampler: Sampler) -> str:
        """The number sign is missing."""
        return answer.strip().lstrip("# ")
