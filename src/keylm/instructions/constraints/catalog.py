"""Kinds of instructions that a program can check: one small class each, by subject in modules.

`BASIC_CONSTRAINTS` is what a model of a few million parameters can learn in minutes, `TRAINED` is all of training, and
`HELD_OUT` are never trained: evaluation alone asks for them. Where IFEval (Zhou et al. 2023) has the same
constraint, `check` means what IFEval's checker means.
"""

from __future__ import annotations

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.choice import OneOf, Steps, Summary, TwoAnswers
from keylm.instructions.constraints.keywords import (
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
from keylm.instructions.constraints.layout import (
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
from keylm.instructions.constraints.length import (
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
from keylm.instructions.constraints.letter_case import (
    CapitalWords,
    FewCapitalWords,
    Lowercase,
    ShoutedSentence,
    ShoutedWord,
    TitleCase,
    Uppercase,
)
from keylm.instructions.constraints.punctuation import (
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
from keylm.instructions.constraints.start_end import (
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

BASIC_CONSTRAINTS: tuple[type[Constraint], ...] = (
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

TRAINED: tuple[type[Constraint], ...] = (
    *BASIC_CONSTRAINTS,
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

HELD_OUT: tuple[type[Constraint], ...] = (
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

ALL_CONSTRAINTS = (
    *(kind for kind in (*TRAINED, *HELD_OUT) if "polish" not in vars(kind)),
    *(kind for kind in (*TRAINED, *HELD_OUT) if "polish" in vars(kind)),
)
