"""Real text as whole, clean sentences: what is left of a document when markup, lists and dangling references are gone.

"# Tea"                                                 a section with the title "Tea"
"Tea (from ) is a drink [1]. It is old. See Figure 3."  a passage of the sentences "Tea is a drink.", "It is old."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Paragraph = tuple[str, ...]
"""The sentences of a paragraph."""
Passage = tuple[Paragraph, ...]
"""Paragraphs that follow each other, with no sentence left out in between."""

_MAX_SENTENCE_WORDS = 60
_QUOTES = str.maketrans({"“": '"', "”": '"', "’": "'", "‘": "'", "\u00a0": " "})
# What a dump leaves of templates and footnotes, and citations.
_REMNANTS = re.compile(
    r" ?\((?:(?: ?[,;:]|see |Figure |Fig|Table )[^()]*|[^()]*[ ,;:]|[^()]*\b(?:18|19|20)\d\d[a-z]?(?=\)[.,;]))\)"
    r"| ?\[[\w ,]{1,12}\]| ?\(\)"
)
_SPACE_BEFORE_MARK = re.compile(r" ([,.;:!?])(?= |$)")
# Written without a full stop, as in British English: a full stop ends sentences only.
_TITLES = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Mt|Prof|Gen|Col|Capt|Rev|Gov|Sen|Jr|Sr|Lt|Sgt)\.(?=[\s,])")
_HAS_ABBREVIATION = re.compile(r"\b(?:[A-Z][a-z]{0,3}|e\.g|i\.e|vs|approx|ca|cf)\.[\s,);A-Z']")
_LATIN = re.compile(r"\b(e\.g\.|i\.e\.|vs\.|approx\.|ca\.|cf\.)(,?)")
_LATIN_MEANINGS = {
    "e.g.": "for example",
    "i.e.": "that is",
    "vs.": "versus",
    "approx.": "approximately",
    "ca.": "about",
    "cf.": "compare",
}
_STARTS = "(?:The|It|In|On|At|He|She|They|We|You|This|These|That|But|And|As|A|An|For|By|If|When|After|However)"
_ACRONYM = re.compile(rf"\b(?:[A-Z]\.){{2,}}(?=[,;)]|'s| (?!{_STARTS}\b)\w)")
_INITIALS = re.compile(rf"\b(?:[A-Z][a-z]+ (?:[A-Z]\. ?)+|(?:[A-Z]\. ?){{2,}})(?=[A-Z][a-z])(?!{_STARTS}\b)")
_DASHES = re.compile(r"(?<=[\w,;:\"'!?])--(?=[\w\"'])| -- ")
_SHOUTED_START = re.compile(
    r"(?:THE|THIS|THAT|THERE|SHE|HE|IT|ONE|ONCE|WHEN|IN|AT|AN|MANY|LONG|THEY|WE)\b(?= [A-Za-z])"
)
_QUOTED_END = re.compile(r'([^.!?\s])\."(?=\s+["(]?[A-Z]|$)')
_SENTENCE_END = re.compile(r'(?<=[.!?])\s+|(?<=[.!?]["\')])\s+(?=["\'(]?[A-Z])')
_SENTENCE = re.compile(r"""["'(]?[A-Z0-9].*[\w)"'%][.!?]["']?""")
_UNUSABLE_MARKS = re.compile(
    r"[*#|<>\[\]{}`\\^=_~@•→…¡¦]|^[A-Z]{5,}\b|https?:|www\.|\.\.|--| [-–]$| ,|\( | \)|\w[.,][A-Za-z]|\([a-e]\)"
)
_UNUSABLE_WORDS = re.compile(
    r"\b(?:"
    # A full stop that ends no sentence.
    r"(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|vs|etc|approx|No|Nos|Fig|Eq|al|cf|Inc|Ltd|Co|Gen|Col|Capt|Mt|Rev|Gov|Sen)\."
    # A number or formula is missing.
    r"|(?:of|about|over|nearly|approximately|roughly|from|between|the|an?)"
    r" (?:(?:and|or|of|in|to|on|at|by|with|from|throughout|is|was)\b|\()"
    r"|(?:in|at) (?:of|in|on|at)\b|(?:of|over|from|is|was|the|and|or|by)[.,;]"
    r"|formula"
    # What is not there: figures, other chapters, what was said before or follows.
    r"|(?:[Ff]igure|[Tt]able|[Cc]hapter|[Ss]ection|[Ee]xample|[Ee]quation|[Mm]odule|[Uu]nit)s? (?:\d|above|below)"
    r"|(?:[Ff]igure|Table|Exhibit|[Ii]llustration|textbook|chapter|sidebar|[Aa]ppendix|subsection)\b"
    r"|[Tt]his (?:section|module|unit|book|article|page|PEP|RFC|lesson|example)\b"
    r"|(?:shown|seen|described|discussed|listed|illustrated|explained|mentioned|noted|depicted)"
    r" (?:in|above|below|earlier|here|previously|before)\b"
    r"|(?:the|as) follow(?:s|ing)\b|(?:see|learn|read) (?:above|below|more)\b"
    r"|the (?:photo|image|picture|diagram|graph|map|drawing|chart) (?:above|below|shows)\b"
    r"|[Tt]he video|[Cc]lick|[Vv]isit the|this guide|[Ww]atch this|[Rr]ead this\b"
    r"|you (?:will|should) (?:learn|be able|explore|read)\b"
    r"|we (?:saw|learned|discussed|showed|defined|introduced|derived|calculated|have (?:seen|learned))\b"
    r"|we will (?:see|discuss|learn|explore)\b"
    r")"
)
_QUOTATION = re.compile(r'(?:^|(?<=[\s(—-]))"(?=\S)[^"]*(?<=\S)"(?!\w)')
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_BLANK_LINES = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Section:
    """A heading and the passages below it."""

    title: str
    """The title of the document; empty if it has none."""
    heading: str
    """The heading of the section; empty in a lead."""
    passages: tuple[Passage, ...]


def read_sections(text: str) -> Iterator[Section]:
    """The sections of a plain text with Markdown headings, as clean sentences."""
    title = heading = ""
    blocks: list[str] = []
    for block in _BLANK_LINES.split(text):
        is_heading = _HEADING.fullmatch(block.strip())
        if not is_heading:
            blocks.append(block)
            continue
        if blocks:
            yield Section(title, heading, _passages(blocks))
        blocks, level, caption = [], len(is_heading[1]), is_heading[2].strip()
        title, heading = (caption, "") if level == 1 else (title, caption)
    yield Section(title, heading, _passages(blocks))


def clean_paragraph(block: str) -> str:
    """A paragraph on one line, without remnants of markup and without full stops that end no sentence."""
    text = " ".join(block.translate(_QUOTES).split())
    if "--" in text:
        text = _DASHES.sub("—", text)
    if "(" in text or "[" in text:
        text = _REMNANTS.sub("", text)
    text = _SPACE_BEFORE_MARK.sub(r"\1", text)
    if _HAS_ABBREVIATION.search(text):
        text = _LATIN.sub(lambda latin: _LATIN_MEANINGS[latin[1]] + latin[2], _TITLES.sub(r"\1", text))
        text = _ACRONYM.sub(lambda acronym: acronym[0].replace(".", ""), text)
        text = _INITIALS.sub(lambda name: name[0].replace(".", " ").replace("  ", " "), text)
    text = _SHOUTED_START.sub(lambda word: word[0].capitalize(), text, count=1) if text[:2].isupper() else text
    return _QUOTED_END.sub(r'\1".', text)


def split_paragraph(paragraph: str) -> list[str]:
    """Split a clean paragraph into sentences; those of one quotation stay together."""
    sentences: list[str] = []
    is_open = False
    for piece in _SENTENCE_END.split(paragraph):
        if is_open:
            sentences[-1] += f" {piece}"
        else:
            sentences.append(piece)
        is_open ^= piece.count('"') % 2 == 1
    return sentences


def is_usable(sentence: str) -> bool:
    """Whether a sentence is whole and can be understood without figures, other chapters or markup."""
    return (
        2 <= sentence.count(" ") < _MAX_SENTENCE_WORDS
        and sentence.count("(") == sentence.count(")")
        and _SENTENCE.fullmatch(sentence) is not None
        and not _UNUSABLE_MARKS.search(sentence)
        and ('"' not in sentence or '"' not in _QUOTATION.sub("", sentence))
        and not _UNUSABLE_WORDS.search(sentence)
    )


def _passages(blocks: list[str]) -> tuple[Passage, ...]:
    """The longest runs of usable sentences in these blocks."""
    passages: list[Passage] = []
    passage: list[Paragraph] = []
    for block in blocks:
        paragraph: list[str] = []
        # A block of many lines is a list, a poem or code.
        is_prose = block.count("\n") < 2 or len(block) > 60 * block.count("\n")
        for sentence in split_paragraph(clean_paragraph(block)) if is_prose else [""]:
            if is_usable(sentence):
                paragraph.append(sentence)
                continue
            passages.append((*passage, tuple(paragraph)) if paragraph else tuple(passage))
            passage, paragraph = [], []
        if paragraph:
            passage.append(tuple(paragraph))
    passages.append(tuple(passage))
    return tuple(passage for passage in passages if passage)
