"""Constraints on layout: lists, paragraphs, sections, tables, markup, JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Counted, Draft
from keylm.instructions.constraints.violations import change_one
from keylm.instructions.content_words import STOPWORDS
from keylm.instructions.phrasings import capitalize
from keylm.instructions.sampler import Sampler


@dataclass(frozen=True)
class _Parts(Counted):
    """Base of the constraints that divide the answer into N parts."""

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number, for a real answer up to twice the largest one."""
        return cls(context.sample_count(*cls.counts))

    @property
    def num_sentences(self) -> int:
        """One sentence for each part."""
        return self.count


@dataclass(frozen=True)
class Bullets(_Parts):
    """Write exactly N bullet points."""

    name = "bullet points"
    conflicts_with = frozenset({"length", "layout", "start"})
    counts = (2, 4)
    # Shorter answers could be asked for small numbers only. The minimum of other parts has the same reason.
    min_real_sentences = 8
    asks_for_length = True
    unit = "bullet point"
    mark: str = "-"

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number, and for a real answer a dash or an asterisk."""
        count = context.sample_count(*cls.counts)
        return cls(count, context.sampler.choice("--*")) if context.is_real else cls(count)

    @property
    def slots(self) -> dict[str, object]:
        """The parameters, and the name of the mark."""
        return {**super().slots, "mark_name": "a dash" if self.mark == "-" else "an asterisk"}

    def apply_to_draft(self, draft: Draft) -> None:
        """Put each of the first N sentences on a line of its own, after the mark."""
        _keep_sentences(draft, self.count)
        draft.sentences = [f"{self.mark} {sentence}" for sentence in draft.sentences]

    def check(self, answer: str) -> bool:
        """True if exactly N lines begin with a dash or an asterisk."""
        # IFEval's patterns: a line that begins with two asterisks is bold type or a divider, not a bullet.
        stars = re.findall(r"^\s*\*[^\*].*$", answer, re.MULTILINE)
        dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
        return len(stars) + len(dashes) == self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the dash from one line."""
        return change_one(r"^\s*[-*] ", "", answer, sampler)


@dataclass(frozen=True)
class NumberedList(_Parts):
    """Write a numbered list of N points."""

    name = "numbered list"
    conflicts_with = frozenset({"length", "layout", "start", "digits"})
    counts = (2, 4)

    def apply_to_draft(self, draft: Draft) -> None:
        """Put each of the first N sentences on a line of its own, after its number."""
        _keep_sentences(draft, self.count)
        draft.sentences = [f"{number}. {sentence}" for number, sentence in enumerate(draft.sentences, 1)]

    def check(self, answer: str) -> bool:
        """True if the lines that begin with a number count from 1 to N."""
        # White space has to follow, or a line that begins with `3.5` would be a point of the list.
        numbers = re.findall(r"^\s*(\d+)[.)]\s", answer, re.MULTILINE)
        return numbers == [str(number) for number in range(1, self.count + 1)]

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the number from one line."""
        return change_one(r"^\d+[.)] ", "", answer, sampler)


def _keep_sentences(draft: Draft, count: int) -> None:
    """Keep the first `count` sentences, one on each line."""
    # Of longer points nobody could tell beforehand where one ends, so a model could not learn how many there will be.
    draft.sentences, draft.separator = draft.sentences[:count], "\n"


@dataclass(frozen=True)
class Paragraphs(_Parts):
    """Write exactly N paragraphs separated by `***`."""

    name = "paragraphs"
    conflicts_with = frozenset({"length", "layout"})
    counts = (2, 3)

    def apply_to_draft(self, draft: Draft) -> None:
        """Put dividers between the parts."""
        draft.merge_sentences(self.count, "\n***\n")

    def check(self, answer: str) -> bool:
        """True if dividers separate N paragraphs; only before the first and after the last may be nothing."""
        # IFEval's rule and pattern.
        paragraphs = [paragraph.strip() for paragraph in re.split(r"\s?\*\*\*\s?", answer)]
        return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one divider."""
        return change_one(r"\n\*\*\*\n", "\n", answer, sampler)


@dataclass(frozen=True)
class Title(Constraint):
    """Give the answer a title in double angle brackets."""

    name = "title"
    conflicts_with = frozenset({"start"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Write a title on the first line."""
        title = draft.context.sampler.choice(("About {}", "All about {}", "A text about {}", "The story of {}"))
        draft.before = f"<<{title.format(draft.context.subject)}>>\n"

    def check(self, answer: str) -> bool:
        """True if there is a title that is not empty."""
        # IFEval's pattern: the title may stand anywhere.
        return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", answer))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one or both pairs of angle brackets."""
        return re.sub(r"<<([^\n]+)>>", sampler.choice((r"\1", r"<\1>")), answer)


@dataclass(frozen=True)
class Highlights(_Parts):
    """Highlight at least N parts with asterisks."""

    name = "highlights"
    conflicts_with = frozenset({"marks", "length"})
    counts = (1, 3)
    min_real_sentences = 6
    unit = "part"

    @property
    def num_sentences(self) -> int:
        """One sentence for each part, and at least two."""
        return max(2, self.count)

    def apply_to_draft(self, draft: Draft) -> None:
        """Highlight the first two words of N sentences, or of all in a real answer, behind a bullet or number."""
        first_words = re.compile(r"^((?:[-*]|\d+\.) )?(\S+ \S+)(?= )")
        count = len(draft.sentences) if draft.context.is_real else self.count
        highlighted = [first_words.sub(r"\1*\2*", sentence) for sentence in draft.sentences[:count]]
        draft.sentences[:count] = highlighted

    def check(self, answer: str) -> bool:
        """True if at least N parts that are not empty are highlighted."""
        # IFEval's patterns: in `**bold**` the first finds only empty pairs, which do not count.
        single = re.findall(r"\*[^\n\*]*\*", answer)
        double = re.findall(r"\*\*[^\n\*]*\*\*", answer)
        return sum(bool(part.strip("*").strip()) for part in single + double) >= self.count

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the asterisks."""
        return re.sub(r"\*([^\n*]+)\*", r"\1", answer)


@dataclass(frozen=True)
class Json(Constraint):
    """Answer with a JSON object that has a given key."""

    name = "JSON with a key"
    conflicts_with = frozenset({"start", "end", "layout", "case", "quotes"})
    key: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw an ordinary word as the key."""
        return cls(context.sampler.word())

    def apply_to_text(self, text: str) -> str:
        """Wrap the text in an object with one key."""
        return json.dumps({self.key: text}, ensure_ascii=False)

    def check(self, answer: str) -> bool:
        """True if the answer is a JSON object with the key, with or without a code fence."""
        # The fences that IFEval's checker removes.
        answer = answer.strip()
        for fence in ("```json", "```Json", "```JSON", "```"):
            answer = answer.removeprefix(fence)
        try:
            value = json.loads(answer.removesuffix("```"))
        except ValueError:
            return False
        return isinstance(value, dict) and self.key in value

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Rename the key, or remove the JSON."""
        text: str = json.loads(answer)[self.key]
        return sampler.choice((json.dumps({sampler.word(): text}, ensure_ascii=False), text))


@dataclass(frozen=True)
class Sections(_Parts):
    """Write at least N sections, each under a label and its number."""

    name = "sections"
    conflicts_with = frozenset({"length", "layout", "start", "digits", "case"})
    counts = (2, 3)
    min_real_sentences = 6
    label: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number and one of the usual labels."""
        label = context.sampler.choice(
            ("Section", "SECTION", "Part", "Chapter", "Day", "Tip", "Scene", "Verse", "Lesson")
            + (("PART", "Act", "Step", "Week", "Idea", "Round", "Phase", "CHAPTER") if context.is_real else ())
        )
        return cls(context.sample_count(*cls.counts), label)

    @property
    def slots(self) -> dict[str, object]:
        """The parameters, and all labels: `Part 1, Part 2 and Part 3`."""
        *most, last = (f"{self.label} {number}" for number in range(1, self.count + 1))
        return {**super().slots, "labels": f"{', '.join(most)} and {last}"}

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the label and the number on a line above each part."""
        draft.merge_sentences(self.count, "\n")
        draft.sentences = [f"{self.label} {number}\n{text}" for number, text in enumerate(draft.sentences, 1)]

    def check(self, answer: str) -> bool:
        """True if the label stands before a number at least N times."""
        # IFEval's pattern, which minds case: hence the conflict with `case`.
        return len(re.findall(rf"{self.label}\s?\d+", answer)) >= self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one of the labels."""
        return change_one(rf"^{self.label} \d+\n", "", answer, sampler)


@dataclass(frozen=True)
class BlankLines(_Parts):
    """Write exactly N paragraphs separated by blank lines."""

    name = "paragraphs by blank lines"
    conflicts_with = frozenset({"length", "layout"})
    counts = (2, 3)
    unit = "paragraph"

    def apply_to_draft(self, draft: Draft) -> None:
        """Put blank lines between the parts."""
        draft.merge_sentences(self.count, "\n\n")

    def check(self, answer: str) -> bool:
        """True if blank lines separate N paragraphs."""
        return len(re.split(r"\n\s*\n", answer.strip())) == self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one blank line."""
        return change_one(r"\n\n", "\n", answer, sampler)


_OPENINGS = (
    "still",
    "yet",
    "today",
    "however",
    "instead",
    "indeed",
    "honestly",
    "luckily",
    "sometimes",
    "often",
    "nowadays",
    "finally",
    "first",
    "later",
    "remember",
    "perhaps",
    "surely",
    "now",
    "here",
)
"""What a paragraph of any text can begin with, before a comma."""


@dataclass(frozen=True)
class FirstWordOfParagraph(_Parts):
    """Write N paragraphs separated by blank lines, one of which begins with a given word."""

    name = "first word of a paragraph"
    conflicts_with = frozenset({"length", "layout", "start"})
    counts = (2, 3)
    min_real_sentences = 3
    unit = "paragraph"
    position: int
    word: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number, one of the paragraphs and an ordinary word, or as often an opening for a real answer.

        Half of the words are given with the capital that they have in the answer.
        """
        count = min(5, context.sample_count(*cls.counts))
        position = context.sampler.number(1, count)
        takes_opening = context.is_real and context.sampler.chance(0.5)
        word = context.sampler.choice(_OPENINGS) if takes_opening else context.sampler.word()
        return cls(count, position, capitalize(word) if context.is_real and context.sampler.chance(0.5) else word)

    @property
    def slots(self) -> dict[str, object]:
        """The parameters, and which paragraph as an ordinal number."""
        return {**super().slots, "order": ("first", "second", "third", "fourth", "fifth")[self.position - 1]}

    def apply_to_draft(self, draft: Draft) -> None:
        """Begin the paragraph with the opening, or with a sentence about the word."""
        draft.merge_sentences(self.count, "\n\n")
        draft.sentences = [
            self._begin(paragraph) if number == self.position else paragraph
            for number, paragraph in enumerate(draft.sentences, 1)
        ]

    def _begin(self, paragraph: str) -> str:
        word = capitalize(self.word)
        if self.word.lower() not in _OPENINGS:
            return f"{word} comes to mind. {paragraph}"
        first = paragraph.partition(" ")[0]
        # Any other word may be a name.
        goes_on = first != "I" and first.lower() in STOPWORDS
        return f"{word}, {paragraph[0].lower() if goes_on else paragraph[0]}{paragraph[1:]}"

    def check(self, answer: str) -> bool:
        """True if there are N paragraphs and the one in question begins with the word, ignoring case."""
        # As in IFEval, an empty paragraph does not count, but shifts the position of those after it.
        paragraphs = answer.split("\n\n")
        if sum(bool(paragraph.strip()) for paragraph in paragraphs) != self.count:
            return False
        # What IFEval's checker takes for the first word: no leading quotation marks, up to the first punctuation mark.
        first, *_ = [*paragraphs[self.position - 1].split(), ""]
        return re.split(r"[.,?!'\"]", first.lstrip("'").lstrip('"').lower())[0] == self.word.lower()

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace the word by another."""
        return re.sub(rf"\b{self.word}(?=,| comes to mind)", sampler.word(), answer, flags=re.IGNORECASE)


@dataclass(frozen=True)
class OneSentencePerLine(Constraint):
    """Write each sentence on a line of its own."""

    name = "one sentence a line"
    conflicts_with = frozenset({"layout", "length"})
    num_sentences = 3

    def apply_to_draft(self, draft: Draft) -> None:
        """Put line breaks between the sentences."""
        draft.separator = "\n"

    def check(self, answer: str) -> bool:
        """True if there are several lines and no line contains the end of one sentence and the start of another."""
        lines = [line for line in answer.splitlines() if line.strip()]
        # A single line would pass without any line break.
        return len(lines) > 1 and not any(re.search(r"[.!?]\s+\w", line) for line in lines)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Join two sentences on one line."""
        return change_one(r"(?<=[.!?])\n(?=\w)", " ", answer, sampler)


@dataclass(frozen=True)
class Table(Counted):
    """Write a Markdown table with N columns."""

    name = "table"
    conflicts_with = frozenset({"length", "layout", "start", "end", "digits"})
    counts = (2, 3)
    unit = "column"

    @property
    def num_sentences(self) -> int:
        """Sentences for two rows."""
        return 2 * (self.count - 1)

    def apply_to_draft(self, draft: Draft) -> None:
        """Number the rows and put one sentence in each of the other cells."""
        # The first column holds the number of the row.
        width = self.count - 1
        rows = [draft.sentences[start : start + width] for start in range(0, len(draft.sentences), width)]
        names = ("No.", "Fact", "More")[: self.count]
        cells = [names, ["---"] * self.count]
        cells += [(str(number), *row, *[""] * (width - len(row))) for number, row in enumerate(rows, 1)]
        draft.sentences, draft.separator = [f"| {' | '.join(row)} |" for row in cells], "\n"

    def check(self, answer: str) -> bool:
        """True if there is a header, a rule and at least one row, and every row has N cells."""
        rows = [line.strip() for line in answer.splitlines() if line.strip().startswith("|")]
        return (
            # A header and a rule alone are no table yet.
            len(rows) > 2
            and bool(re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", rows[1]))
            and all(row.endswith("|") and row.count("|") == self.count + 1 for row in rows)
        )

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the rule, or the border of a cell."""
        return sampler.choice((re.sub(r"(\| ---)+ \|\n", "", answer), change_one(r"(?<=\w) \| ", " ", answer, sampler)))


@dataclass(frozen=True)
class CodeBlock(Constraint):
    """Put the whole answer in a fenced code block."""

    name = "fenced block"
    conflicts_with = frozenset({"start", "end"})

    def apply_to_text(self, text: str) -> str:
        """Add three backticks above and below."""
        return f"```\n{text}\n```"

    def check(self, answer: str) -> bool:
        """True if fences enclose everything."""
        # A fence inside would end the block before the answer ends.
        return bool(re.fullmatch(r"```\w*\n(?:(?!```).)+\n```", answer.strip(), re.DOTALL))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the last fence or both."""
        return answer[4:-4] if sampler.chance(0.5) else answer[:-4]


@dataclass(frozen=True)
class LineMark(Constraint):
    """Begin every line with a given mark."""

    name = "mark on every line"
    conflicts_with = frozenset({"layout", "length", "start", "end"})
    mark: str
    num_sentences = 3

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a mark."""
        return cls(context.sampler.choice((">", ">>", "=>", "->", "~", "+", "|", "::")))

    def apply_to_draft(self, draft: Draft) -> None:
        """Put each sentence on a line of its own, after the mark."""
        draft.sentences, draft.separator = [f"{self.mark} {sentence}" for sentence in draft.sentences], "\n"

    def check(self, answer: str) -> bool:
        """True if every line begins with the mark."""
        lines = [line.strip() for line in answer.splitlines() if line.strip()]
        return bool(lines) and all(line.startswith(self.mark) for line in lines)

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the mark from one line."""
        return change_one(rf"^{re.escape(self.mark)} ", "", answer, sampler)


@dataclass(frozen=True)
class Separator(_Parts):
    """Write N parts separated by lines of a given mark."""

    name = "marks between parts"
    conflicts_with = frozenset({"layout", "length"})
    counts = (2, 3)
    unit = "part"
    mark: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number and the mark."""
        return cls(
            context.sample_count(*cls.counts),
            context.sampler.choice(("~~~", "===", "+++", "---", "%%%", "###", "o o o")),
        )

    def apply_to_draft(self, draft: Draft) -> None:
        """Put the mark on lines of its own between the parts."""
        draft.merge_sentences(self.count, f"\n{self.mark}\n")

    def check(self, answer: str) -> bool:
        """True if such lines separate N parts that are not empty."""
        # Case is ignored because of `o o o`, which an answer in capitals has as `O O O`.
        parts = re.split(rf"^\s*{re.escape(self.mark)}\s*$", answer, flags=re.MULTILINE | re.IGNORECASE)
        return len(parts) == self.count and all(map(str.strip, parts))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Replace one mark by another, or remove it."""
        return change_one(rf"^{re.escape(self.mark)}$", sampler.choice(("", "...")), answer, sampler)


@dataclass(frozen=True)
class Wrapped(Constraint):
    """Put given marks before and after the answer."""

    name = "between marks"
    conflicts_with = frozenset({"start", "end", "layout"})
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
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw a pair of marks."""
        return cls(*context.sampler.choice(cls.pairs))

    def apply_to_text(self, text: str) -> str:
        """Add the marks."""
        return f"{self.first} {text} {self.last}"

    def check(self, answer: str) -> bool:
        """True if the answer begins and ends with the marks and has something between them."""
        inner = answer.strip().removeprefix(self.first).removesuffix(self.last)
        return bool(inner.strip()) and answer.strip() == f"{self.first}{inner}{self.last}"

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one of the marks or both."""
        inner = answer[len(self.first) : -len(self.last)].strip()
        return sampler.choice((inner, f"{self.first} {inner}", f"{inner} {self.last}"))


@dataclass(frozen=True)
class Tags(Constraint):
    """Put the whole answer between XML tags."""

    name = "tags"
    conflicts_with = frozenset({"start", "end", "case"})
    tag: str

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw one of the usual tag names or an ordinary word."""
        return cls(context.sampler.choice(("answer", "text", "reply", context.sampler.word())))

    def apply_to_text(self, text: str) -> str:
        """Add the tags."""
        return f"<{self.tag}>{text}</{self.tag}>"

    def check(self, answer: str) -> bool:
        """True if the answer begins and ends with the tags, and each occurs once."""
        first, last, answer = f"<{self.tag}>", f"</{self.tag}>", answer.strip()
        ends = answer.startswith(first) and answer.endswith(last)
        # Each tag once: `<a>x</a> y <a>z</a>` has text outside of the tags.
        return ends and len(answer) > len(first + last) and answer.count(first) == answer.count(last) == 1

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one of the tags, or rename both."""
        first, last, other = f"<{self.tag}>", f"</{self.tag}>", sampler.word()
        renamed = answer.replace(first, f"<{other}>").replace(last, f"</{other}>")
        return sampler.choice((answer.removesuffix(last), answer.removeprefix(first), renamed))


@dataclass(frozen=True)
class Placeholders(Counted):
    """Leave at least N placeholders in square brackets."""

    name = "placeholders"
    conflicts_with = frozenset({"length"})
    names = (
        "name",
        "date",
        "place",
        "address",
        "time",
        "price",
        "number",
        "title",
        "phone number",
        "company",
        "reason",
    )
    counts = (1, 3)
    unit = "placeholder"

    @classmethod
    def sample(cls, context: ConstraintContext) -> Self:
        """Draw the number, for a real answer up to six."""
        return cls(context.sampler.number(1, 6 if context.is_real else 3))

    @property
    def num_sentences(self) -> int:
        """One sentence about the topic, and one for each placeholder."""
        return 1 + self.count

    def apply_to_draft(self, draft: Draft) -> None:
        """Replace all sentences of an invented answer but the first by sentences with placeholders, or append these."""
        frames = (
            "Please write down the [{}].",
            "Do you know the [{}]?",
            "The [{}] is still open.",
            "Please add the [{}] here.",
            "The [{}] will follow.",
            "Ask us for the [{}].",
            "Leave a note with the [{}].",
            "Everybody asks for the [{}].",
        )
        # Two more than are asked for: a small model counts badly, and the number is a lower bound.
        count, kept = (self.count + 2, len(draft.sentences)) if draft.context.is_real else (self.count, 1)
        names = draft.context.sampler.rng.sample(self.names, count)
        draft.sentences[kept:] = [frame.format(name) for frame, name in zip(frames, names, strict=False)]

    def check(self, answer: str) -> bool:
        """True if there are at least N placeholders."""
        # IFEval's pattern.
        return len(re.findall(r"\[.*?\]", answer)) >= self.count

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove the brackets of one placeholder."""
        return change_one(r"\[([^\n]*?)\]", r"\1", answer, sampler)


@dataclass(frozen=True)
class Bold(Constraint):
    """Use bold type at least once."""

    name = "bold words"
    conflicts_with = frozenset({"marks", "length"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Make the first two words bold."""
        draft.sentences[0] = re.sub(r"^(\S+ \S+)(?= )", r"**\1**", draft.sentences[0])

    def check(self, answer: str) -> bool:
        """True if anything is bold."""
        # A space after the asterisks makes them literal in Markdown.
        return bool(re.search(r"\*\*[^\s*][^\n*]*\*\*", answer))

    def violate(self, answer: str, sampler: Sampler) -> str:
        """Remove one or both pairs of asterisks."""
        return re.sub(r"\*\*([^\n*]+)\*\*", sampler.choice((r"\1", r"*\1*")), answer)


@dataclass(frozen=True)
class Heading(Constraint):
    """Begin with a Markdown heading."""

    name = "markdown heading"
    conflicts_with = frozenset({"start"})

    def apply_to_draft(self, draft: Draft) -> None:
        """Write a heading on the first line."""
        draft.before = f"# {capitalize(draft.context.subject)}\n"

    def check(self, answer: str) -> bool:
        """True if the first line is a heading."""
        return bool(re.match(r"#{1,6} +\S", answer.strip()))

    def violate(self, answer: str, _sampler: Sampler) -> str:
        """Remove the number sign."""
        return answer.strip().lstrip("# ")
