"""The catalog of constraints: which are trained, which are held out, and the sets that a recipe can name.

Where IFEval (Zhou et al. 2023, arXiv 2311.07911) has the same constraint, `check` means what IFEval's checker means.
"""

from __future__ import annotations

from collections.abc import Sequence

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

ConstraintSet = Sequence[type[Constraint]]
"""Constraints to draw from; one that is repeated is drawn more often."""

# The order is part of the data, because the generator draws by index. A test pins the documents of the basic set byte
# for byte: the quickstart was measured on them.
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
"""What a model of a few million parameters learns in minutes."""

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
"""Everything that training can ask for."""

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
"""The trained constraints whose answers contain words of the request: they take the most practice."""

FREQUENT: tuple[type[Constraint], ...] = (
    Keywords,
    Frequency,
    Forbidden,
    ForbiddenWords,
    LetterAtLeast,
    LetterFewer,
    MinWords,
    MaxWords,
    MinSentences,
    FewerSentences,
    Sentences,
    Paragraphs,
    BlankLines,
    FirstWordOfParagraph,
    Bullets,
    Highlights,
    Title,
    Sections,
    Json,
    OneOf,
    TwoAnswers,
    RepeatRequest,
    Placeholders,
    Postscript,
    CapitalWords,
    FewCapitalWords,
    Lowercase,
    Uppercase,
    EndPhrase,
    Quotation,
    NoCommas,
)
"""The trained constraints that people ask for most: those of IFEval, which were collected for that reason."""

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
"""What only evaluation asks for."""

# Parameters are drawn in this order too, so moving an entry changes documents. The sort is stable.
ALL_CONSTRAINTS: tuple[type[Constraint], ...] = tuple(
    sorted((*TRAINED, *HELD_OUT), key=lambda constraint: constraint.apply_to_text is not Constraint.apply_to_text)
)
"""All constraints in the order of application: those that change the finished text come last."""

CHAT_CONSTRAINTS: ConstraintSet = (
    *TRAINED,
    *2 * COPYING,
    *3 * FREQUENT,
    *3 * (Keywords, EndPhrase, RepeatRequest, FirstWordOfParagraph),
    *12 * (Bullets, MinWords),
    *2 * (MaxWords, NoCommas, Forbidden, ForbiddenWords, Paragraphs),
    *5 * (MinSentences, Sections, Highlights),
)
"""What is asked of real answers: like `all`, and the frequent constraints four times as likely too. The last ones
take the most practice, or conflict with many others and would be left out too often."""

CONSTRAINT_SETS: dict[str, ConstraintSet] = {"basic": BASIC_CONSTRAINTS, "all": (*TRAINED, *2 * COPYING)}
"""What training draws from, by the name in the recipe. In `all`, the copying constraints are three times as likely."""
