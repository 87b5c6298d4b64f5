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
    ForbiddenWords,
    Frequency,
    KeySentence,
    KeywordOrder,
    Keywords,
    LetterAtLeast,
    LetterFewer,
    NoLetter,
    WordIn,
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
    LineMark,
    NumberedList,
    OneSentencePerLine,
    Paragraphs,
    Placeholders,
    Sections,
    Separator,
    Table,
    Tags,
    Title,
    Wrapped,
)
from keylm.data.instructions.constraints.length import (
    AroundWords,
    FewerSentences,
    MaxCharacters,
    MaxWords,
    MinCharacters,
    MinSentences,
    MinWords,
    SentenceRange,
    Sentences,
    ShortSentences,
    WordRange,
)
from keylm.data.instructions.constraints.letter_case import (
    CapitalWords,
    FewCapitalWords,
    Lowercase,
    ShoutedSentence,
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
    NoMark,
    OneExclamation,
    OneNumber,
    Parentheses,
    Semicolon,
    UseMark,
)
from keylm.data.instructions.constraints.start_end import (
    EndMark,
    EndPhrase,
    EndQuestion,
    FirstLetter,
    Frame,
    Greeting,
    LastWord,
    Postscript,
    Quotation,
    RepeatRequest,
    SecondSentence,
    Signature,
    StartPhrase,
)

__all__ = ["ALL_KINDS", "BASIC", "COPYING", "KINDS", "NEW_KINDS", "Brief", "Constraint", "Draft", "compatible"]

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
    ForbiddenWords,
    WordIn,
    SentenceRange,
    MinCharacters,
    LineMark,
    Separator,
    Wrapped,
    ShoutedSentence,
    NoMark,
    UseMark,
    EndMark,
    SecondSentence,
)
"""What training asks for."""

COPYING: tuple[type[Constraint], ...] = (
    Keywords,
    Frequency,
    KeySentence,
    StartPhrase,
    EndPhrase,
    RepeatRequest,
    FirstWordOfParagraph,
    ShoutedWord,
    OneOf,
    Signature,
    Json,
)
"""Those of them whose answers hold words of the request: they take the most practice."""

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
