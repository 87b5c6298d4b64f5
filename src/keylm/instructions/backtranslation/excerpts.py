"""Cutting excerpts: runs of whole sentences that can stand alone, of 10 to 400 words, half of them under 90."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from keylm.instructions.backtranslation.prose import Paragraph, Section
from keylm.instructions.backtranslation.subjects import Subject, find_film, find_subject

MIN_WORDS, MAX_WORDS = 10, 400
_MIN_TARGET_WORDS = 12
# The first sentence of an answer must not go on from something that is not there.
_DEPENDENT_WORDS = """
    He She It They We You I His Her Its Their Our My Your This These That Those Such However But And Or Nor So Yet Also
    Then Thus Therefore Hence Moreover Furthermore Additionally Similarly Likewise Instead Otherwise Nevertheless
    Nonetheless Consequently Accordingly Meanwhile Finally Another Both Other Others First Second Secondly Third Thirdly
    Fourth Lastly Next Later Afterward Afterwards Again Still Here There Neither Either Note Recall Now Indeed Perhaps
    Rather Yes No Well What Why How Who Where Let Consider Imagine Suppose Some Take Besides
    Remember Watch Learn Read Identify Explain Describe Use Solve Find Determine Calculate Write Draw Compare Click
    """.split()  # noqa: SIM905
_DEPENDENT_PHRASES = (
    "Of course|Even so|To (?:learn|recap)|More than|One (?:of|such)",
    "(?:After|At|By|To|With|Because of|Unlike) (?:this|that|the same)",
    "In (?:addition|contrast|fact|this|these|that|other words|turn|particular|both|such)|By contrast",
    "For (?:example|instance|some|all|both|each|this|these|that)|As (?:a result|such|we|you|noted|mentioned|with)",
    "On the (?:other|contrary)|When (?:he|she|it|they|we|you)",
    "An? (?:second|third|fourth|fifth|final|last|related|similar|further)",
    "The (?:latter|former|same|other|first|second|third|fourth|fifth|next|last|latest|final|above|following|result)",
)
_DEPENDENT_START = re.compile(rf"\d|[\"'(]?(?:{'|'.join((*_DEPENDENT_WORDS, *_DEPENDENT_PHRASES))})\b")
_FIRST_PERSON_START = re.compile(r"[\"']?(?:I|We|My|Our)\b")


@dataclass(frozen=True)
class Excerpt:
    """Whole sentences of a document, with what they are about."""

    subject: Subject
    title: str
    """The title of the document; empty if it has none."""
    paragraphs: tuple[Paragraph, ...]
    is_beginning: bool
    """Whether the document begins with this excerpt."""

    @property
    def sentences(self) -> list[str]:
        """All sentences."""
        return [sentence for paragraph in self.paragraphs for sentence in paragraph]

    @property
    def text(self) -> str:
        """The sentences, with a blank line between paragraphs."""
        return "\n\n".join(" ".join(paragraph) for paragraph in self.paragraphs)

    @property
    def num_words(self) -> int:
        """Number of words, counted at white space."""
        return len(self.text.split())


def cut_excerpts(
    sections: Iterator[Section],
    rng: Random,
    *,
    speaker: bool = False,
    is_review: bool = False,
    max_words: int = MAX_WORDS,
) -> Iterator[Excerpt]:
    """Cut excerpts from the sections of a document; no sentence is used twice.

    Args:
        sections: what to cut.
        rng: draws the lengths.
        speaker: whether a text may begin with `I` or `we`, as a speech does.
        is_review: whether the text is about a film, whose type is the subject.
        max_words: the length of the longest excerpts.
    """
    is_beginning = True
    for section in sections:
        for passage in section.passages:
            start = 0
            while start < len(passage):
                first = passage[start][0]
                may_start = not _DEPENDENT_START.match(first) or (speaker and _FIRST_PERSON_START.match(first))
                paragraphs = _cut(passage[start:], _target_words(rng, max_words), max_words) if may_start else ()
                sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
                subject = None
                if sentences:
                    find = find_film if is_review else partial(find_subject, section.title, section.heading)
                    subject = find(sentences)
                if subject:
                    yield Excerpt(subject, section.title, paragraphs, is_beginning)
                start += len(paragraphs) if subject else 1
                is_beginning = False


def _target_words(rng: Random, max_words: int) -> int:
    """A length with a uniform logarithm. Sentences of books are long: half of the excerpts have under 90 words."""
    return round(math.exp(rng.uniform(math.log(_MIN_TARGET_WORDS), math.log(max_words))))


def _cut(paragraphs: tuple[Paragraph, ...], target: int, max_words: int) -> tuple[Paragraph, ...]:
    """The first sentences, up to the first that reaches `target` words; none if too few or repeated."""
    chosen: list[Paragraph] = []
    num_words = 0
    for paragraph in paragraphs:
        taken: list[str] = []
        for sentence in paragraph:
            length = len(sentence.split())
            # The end of a paragraph is a better place to stop than the middle of the next one.
            if num_words >= target or num_words + length > max_words or (not taken and num_words > 0.6 * target):
                break
            taken.append(sentence)
            num_words += length
        if taken:
            chosen.append(tuple(taken))
        if len(taken) < len(paragraph):
            break
    sentences = [sentence for paragraph in chosen for sentence in paragraph]
    # A refrain would teach to go round in circles.
    has_refrain = len(set(sentences)) < len(sentences)
    return tuple(chosen) if num_words >= MIN_WORDS and not has_refrain else ()
