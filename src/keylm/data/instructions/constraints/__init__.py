"""Kinds of instructions that a program can check: one small class each, by subject in modules.

`BASIC` is what a model of a few million parameters can learn in minutes, `KINDS` is all of training, and `NEW_KINDS`
are never trained: evaluation alone asks for them. Where IFEval (Zhou et al. 2023) has the same kind, `check` means what
IFEval's checker means.
"""

from __future__ import annotations

from keylm.data.instructions.constraints.base import Brief, Constraint, Draft, compatible
from keylm.data.instructions.constraints.choice import OneOf, Steps, Summary, TwoAnswers
from keylm.data.instructions.constraints.keywords import (
    ExactTimes,
    FewerTimes,
    Forbidden,
    Frequency,
    KeySentence,
    KeywordOrder,
    Keywords,
    LetterAtLeast,
    LetterFewer,
    NoLetter,
)
from keylm.data.instructions.constraints.layout import (
    BlankLines,
    Bold,
    Bullets,
    CodeBlock,
    FirstWordOfParagraph,
    Heading,
    Highlights,
    Json,
    NumberedList,
    OneSentencePerLine,
    Paragraphs,
    Placeholders,
    Sections,
    Table,
    Tags,
    Title,
)
from keylm.data.instructions.constraints.length import (
    AroundWords,
    FewerSentences,
    MaxCharacters,
    MaxWords,
    MinSentences,
    MinWords,
    Sentences,
    ShortSentences,
    WordRange,
)
from keylm.data.instructions.constraints.letter_case import (
    CapitalWords,
    FewCapitalWords,
    Lowercase,
    ShoutedWord,
    TitleCase,
    Uppercase,
)
from keylm.data.instructions.constraints.punctuation import (
    AskQuestion,
    Ellipsis,
    Exclaim,
    NoCommas,
    NoDigits,
    NoExclamation,
    NoHyphens,
    OneExclamation,
    OneNumber,
    Parentheses,
    Semicolon,
)
from keylm.data.instructions.constraints.start_end import (
    EndPhrase,
    EndQuestion,
    FirstLetter,
    Frame,
    Greeting,
    LastWord,
    Postscript,
    Quotation,
    RepeatRequest,
    Signature,
    StartPhrase,
)

__all__ = ["ALL_KINDS", "BASIC", "KINDS", "NEW_KINDS", "Brief", "Constraint", "Draft", "compatible"]

BASIC: tuple[type[Constraint], ...] = (
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
"""What a small model learns first."""

KINDS: tuple[type[Constraint], ...] = (
    *BASIC,
    FewerTimes,
    KeySentence,
    LetterAtLeast,
    LetterFewer,
    MinSentences,
    FewerSentences,
    MinWords,
    AroundWords,
    ShortSentences,
    Sections,
    BlankLines,
    FirstWordOfParagraph,
    OneSentencePerLine,
    Table,
    Placeholders,
    Bold,
    CapitalWords,
    FewCapitalWords,
    ShoutedWord,
    NoExclamation,
    Exclaim,
    NoDigits,
    AskQuestion,
    Parentheses,
    Semicolon,
    OneOf,
    TwoAnswers,
    Steps,
    Signature,
    Greeting,
    CodeBlock,
)
"""What training asks for."""

NEW_KINDS: tuple[type[Constraint], ...] = (
    ExactTimes,
    KeywordOrder,
    NoLetter,
    WordRange,
    MaxCharacters,
    Heading,
    TitleCase,
    OneExclamation,
    OneNumber,
    Ellipsis,
    NoHyphens,
    EndQuestion,
    LastWord,
    FirstLetter,
    Frame,
    Summary,
    Tags,
)
"""What evaluation alone asks for."""

ALL_KINDS = (
    *(kind for kind in (*KINDS, *NEW_KINDS) if "polish" not in vars(kind)),
    *(kind for kind in (*KINDS, *NEW_KINDS) if "polish" in vars(kind)),
)
