import itertools
from random import Random

import pytest
from helpers.instruction_samples import make_sampler

from keylm.instructions.constraints.base import Constraint, are_compatible
from keylm.instructions.constraints.catalog import (
    ALL_CONSTRAINTS,
    BASIC_CONSTRAINTS,
    AroundWords,
    AskQuestion,
    BlankLines,
    Bold,
    Bullets,
    CapitalWords,
    CodeBlock,
    Ellipsis,
    EndMark,
    EndPhrase,
    EndQuestion,
    ExactTimes,
    Exclaim,
    FewCapitalWords,
    FewerSentences,
    FewerTimes,
    FirstLetter,
    FirstWordOfParagraph,
    Forbidden,
    ForbiddenWords,
    Frame,
    Frequency,
    Greeting,
    Heading,
    Highlights,
    Json,
    KeySentence,
    KeywordOrder,
    Keywords,
    LastWord,
    LetterAtLeast,
    LetterFewer,
    LineMark,
    Lowercase,
    MaxCharacters,
    MaxWords,
    MinCharacters,
    MinSentences,
    MinWords,
    NoCommas,
    NoDigits,
    NoExclamation,
    NoHyphens,
    NoLetter,
    NoMark,
    NumberedList,
    OneExclamation,
    OneNumber,
    OneOf,
    OneSentencePerLine,
    Paragraphs,
    Parentheses,
    Placeholders,
    Postscript,
    Quotation,
    RepeatRequest,
    SecondSentence,
    Sections,
    Semicolon,
    SentenceRange,
    Sentences,
    Separator,
    ShortSentences,
    ShoutedSentence,
    ShoutedWord,
    Signature,
    StartPhrase,
    Steps,
    Summary,
    Table,
    Tags,
    Title,
    TitleCase,
    TwoAnswers,
    Uppercase,
    UseMark,
    WordIn,
    WordRange,
    Wrapped,
)
from keylm.instructions.rejected import make_rejected
from keylm.instructions.requests import topic_request
from keylm.instructions.task import Task

PAIRS = [pair for pair in itertools.combinations(ALL_CONSTRAINTS, 2) if are_compatible(*pair)]


# Answers follow


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("constraint_type", ALL_CONSTRAINTS, ids=lambda constraint_type: constraint_type.name)
def test_answers_follow_their_instruction(constraint_type: type[Constraint], held_out: bool) -> None:
    for seed in range(80):
        example = topic_request(make_sampler(seed, held_out), [constraint_type])
        assert example.task.constraint_names == [constraint_type.name]
        assert example.task.followed(example.answer) == [True]
        assert example.task.names_topic(example.answer)


def test_answers_follow_two_instructions_at_once() -> None:
    for seed, pair in enumerate(PAIRS):
        example = topic_request(make_sampler(seed), list(pair))
        assert len(example.task.checks) == 2
        assert all(example.task.followed(example.answer))


def test_conflicting_constraints_are_never_combined() -> None:
    example = topic_request(make_sampler(0), [Lowercase, Uppercase])
    assert example.task.constraint_names == ["all lower case"]


def test_most_basic_constraints_are_compatible() -> None:
    pairs = list(itertools.combinations(BASIC_CONSTRAINTS, 2))
    assert sum(are_compatible(*pair) for pair in pairs) > len(pairs) / 2
    assert all(are_compatible(*pair) == are_compatible(*reversed(pair)) for pair in pairs)


@pytest.mark.parametrize("constraint_type", ALL_CONSTRAINTS, ids=lambda constraint_type: constraint_type.name)
def test_every_phrasing_can_be_filled(constraint_type: type[Constraint]) -> None:
    (own,) = topic_request(make_sampler(0), [constraint_type]).task.checks
    phrasings = constraint_type.phrasings()
    for phrasing in (*phrasings.train, *phrasings.held_out):
        assert "{" not in phrasing.format(**own.slots)


# Rejected answers


@pytest.mark.parametrize("constraint_type", ALL_CONSTRAINTS, ids=lambda constraint_type: constraint_type.name)
def test_every_constraint_can_be_violated(constraint_type: type[Constraint]) -> None:
    examples = [topic_request(make_sampler(seed), [constraint_type]) for seed in range(60)]
    rejected = [make_rejected(example, Random(seed)) for seed, example in enumerate(examples)]
    broken = [(example, answer) for example, answer in zip(examples, rejected, strict=True) if answer is not None]
    assert len(broken) > 0.85 * len(examples)
    assert all(example.task.followed(answer) == [False] for example, answer in broken)
    assert all(answer.strip() and answer != example.answer for example, answer in broken)


def test_a_rejected_answer_fails_one_constraint() -> None:
    rejected, chosen = 0, set()
    for seed, pair in enumerate(4 * PAIRS):
        example = topic_request(make_sampler(seed), list(pair))
        answer = make_rejected(example, Random(seed))
        if answer is not None:
            followed = example.task.followed(answer)
            assert sorted(followed) == [False, True]
            rejected, chosen = rejected + 1, chosen | {example.task.constraint_names[followed.index(False)]}
    assert rejected > 0.95 * 4 * len(PAIRS)
    assert chosen == {constraint_type.name for constraint_type in ALL_CONSTRAINTS}


def test_rejected_answers_are_deterministic() -> None:
    example = topic_request(make_sampler(1), [Keywords, NoCommas])
    assert make_rejected(example, Random(3)) == make_rejected(example, Random(3))


# What the checks mean, by hand

CASES: list[tuple[Constraint, list[str], list[str]]] = [
    (Keywords(("lamp", "sea")), ["A LAMP by the seaside."], ["A lamp.", "The sea."]),
    (Frequency("lamp", 2), ["Lamp and lamps."], ["A lamp."]),
    (Forbidden("lamp"), ["Two lamps."], ["A lamp.", "LAMP!"]),
    (Sentences(2), ["One. Two!", "Is it 3.5? Yes."], ["One.", "One. Two. Three."]),
    (MaxWords(3), ["One, two three."], ["One two three four."]),
    (Bullets(2), ["- a\n- b", "So:\n* a\n* b"], ["- a", "- a\n- b\n- c", "a\nb"]),
    (NumberedList(2), ["1. a\n2. b", "1) a\n2) b"], ["1. a", "2. a\n1. b", "1. a\n2. b\n3. c", "- a\n- b"]),
    (Paragraphs(2), ["a\n***\nb", "***\na\n***\nb"], ["a\n\nb", "a\n***\n***\nb", "a\n***\nb\n***\nc"]),
    (Highlights(2), ["*a* and *b*", "**a** and *b*"], ["*a* and b", "* * and * *"]),
    (Title(), ["<<a>>\nText.", "Text.\n<<a>>"], ["<a>", "<<>>", "<< >>", "<<a\n>>"]),
    (StartPhrase("Sea lamp"), ["Sea lamp: yes.", " sea lamp"], ["The sea lamp."]),
    (EndPhrase("Ask me."), ["So. Ask me.", '"So. ASK ME."'], ["Ask me. So.", "Ask me"]),
    (Postscript("P.S."), ["So.\nP.S. Hm.", "p. s. hm"], ["PS hm"]),
    (Postscript("P.P.S"), ["So.\nP.P.S hm"], ["So.\nP.S. Hm."]),
    (RepeatRequest("Say hi."), ["Say hi.\nHi.", "SAY HI. Hi."], ["Hi.\nSay hi.", "Say hi"]),
    (NoCommas(), ["One two."], ["One, two."]),
    (Lowercase(), ["one 2."], ["One.", "ONE.", "12."]),
    (Uppercase(), ["ONE 2."], ["One.", "one.", "12."]),
    (
        Json("lamp"),
        ['{"lamp": 1}', '```json\n{"lamp": "a"}\n```'],
        ['{"a": "lamp"}', '["lamp"]', "{lamp: 1}"],
    ),
    (Quotation(), ['"a"', ' "a b." '], ['"a', "a", "'a'", '"']),
    (FewerTimes("lamp", 2), ["A lamp.", "None."], ["Lamp and lamps."]),
    (ExactTimes("lamp", 2), ["Lamp and lamps."], ["A lamp.", "Lamp lamp lamp."]),
    (KeywordOrder("lamp", "sea"), ["A lamp. The Sea.", "Lamp, sea, lamp."], ["Sea, lamp.", "A lamp."]),
    (KeySentence("The sea is old."), ["So. The sea is old. Yes.", "THE SEA IS OLD."], ["The sea is."]),
    (LetterAtLeast("k", 2), ["A kick.", "KK"], ["A key."]),
    (LetterFewer("k", 2), ["A key.", "No."], ["A kick.", "Kk"]),
    (NoLetter("z"), ["A key."], ["A zoo.", "Zoo"]),
    (MinSentences(2), ["One. Two!", "One. Two. Three."], ["One. "]),
    (FewerSentences(3), ["One.", "One. Two."], ["One. Two. Three."]),
    (MinWords(3), ["One two three."], ["One, two."]),
    (AroundWords(10), ["a " * 8, "a " * 12], ["a " * 7, "a " * 13]),
    (WordRange(2, 3), ["a b", "a b c"], ["a", "a b c d"]),
    (ShortSentences(3), ["One two three. Four!"], ["One. Two three four five."]),
    (MaxCharacters(5), ["12345", " 12345 "], ["123456"]),
    (Sections(2, "Part"), ["Part 1\na\nPart 2\nb", "Part1 Part2 Part 3"], ["Part 1\na", "Part one\nPart two"]),
    (BlankLines(2), ["a\n\nb", "a\n \n\nb\n"], ["a\nb", "a\n\nb\n\nc"]),
    (
        FirstWordOfParagraph(2, 2, "sea"),
        ["A lamp.\n\nSea, or so.", 'a\n\n"Sea" b'],
        ["Sea a.\n\nLamp.", "a\n\nseaside", "sea", "a\n\nsea\n\nb"],
    ),
    (OneSentencePerLine(), ["A b.\nC d!"], ["A b. C d.", "A.\nB. C.", "A b."]),
    (
        Table(2),
        ["| a | b |\n| --- | --- |\n| 1 | 2 |", "|a|b|\n|:-|-:|\n|1|2|"],
        ["| a | b |\n| 1 | 2 |\n| 3 | 4 |", "| a | b |\n| --- | --- |", "| a |\n| --- |\n| b |", "a | b"],
    ),
    (Placeholders(2), ["[a] and [b]", "[a][b][c]"], ["[a]", "(a) (b)"]),
    (Bold(), ["**a b** c"], ["*a b* c", "a ** b"]),
    (Heading(), ["# a\nb", "### a"], ["a\n# b", "#a"]),
    (CodeBlock(), ["```\na\nb\n```", "```py\na\n```"], ["a", "```\na", "a\n```\nb\n```", "```\na\n```\nb\n```"]),
    (Tags("sea"), ["<sea>a</sea>"], ["<sea>a", "a", "<sea>a</sea> b", "<sea></sea>", "<lake>a</lake>"]),
    (CapitalWords(2), ["A LAMP", "LAMP-POST and SEA"], ["Lamp SEA", "lamp"]),
    (FewCapitalWords(2), ["Lamp SEA", "lamp", "LAMP-POST"], ["LAMP SEA"]),
    (TitleCase(), ["The Sea's 2 Lamps."], ["The sea.", "the Sea", "12"]),
    (ShoutedWord("lamp"), ["A LAMP."], ["A lamp.", "A sea.", "LAMP Lamp"]),
    (NoExclamation(), ["So."], ["So!"]),
    (Exclaim(), ["So! Yes!", "So!"], ["So! Yes.", "So."]),
    (OneExclamation(), ["So! Yes."], ["So! Yes!", "So."]),
    (NoDigits(), ["one"], ["1", "a2"]),
    (OneNumber(), ["1", "a2"], ["one"]),
    (AskQuestion(), ["So? Yes."], ["So."]),
    (Parentheses(), ["So (yes)."], ["So.", "()", "(a", "( )"]),
    (Semicolon(), ["a; b"], ["a, b"]),
    (Ellipsis(), ["So...", "So.... yes"], ["So..", "So."]),
    (NoHyphens(), ["a b"], ["a-b", "a – b", "a — b"]),
    (OneOf(("Yes.", "No.")), ["Yes. It is.", "So: No."], ["Yes. No.", "Maybe."]),
    (TwoAnswers(), ["a\n******\nb", "****** a ****** b"], ["a", "a\n***\nb", "a ****** a", "a******b******c"]),
    (Steps(2), ["Step 1: a\nstep 2: b"], ["Step 1: a", "Step 2: a\nStep 1: b", "1. a\n2. b"]),
    (Summary("In short"), ["a\nIn short: b", "a\nIN SHORT: b"], ["In short: b", "a\nb", "In short: a\nb"]),
    (EndQuestion(), ["So. Yes?", '"Yes?"'], ["So? Yes.", "So"]),
    (LastWord("sea"), ["The sea.", 'The "SEA"!'], ["Sea lamp.", "The seas."]),
    (FirstLetter("S"), ["Sea.", " sea"], ["The sea."]),
    (Frame(), ["Sea: a sea.", "sea b SEA"], ["Sea.", "Sea a.", "Sea sea"]),
    (Greeting(), ["Hello! So.", "good morning, you"], ["So. Hello!", "Hill"]),
    (ForbiddenWords(("lamp", "sea")), ["Two lamps."], ["A lamp.", "SEA!"]),
    (WordIn("sea", "last"), ["A. The SEA.", "Sea."], ["Sea. A.", "The seas."]),
    (SentenceRange(1, 2), ["One.", "One. Two!"], ["One. Two. Three."]),
    (MinCharacters(5), ["a b c", " ab cd "], ["a b ", "   abcd   "]),
    (LineMark(">"), ["> a\n>b\n\n> c", ">a"], ["> a\nb", "a > b", ">a\n-b"]),
    (Separator(2, "==="), ["a\n===\nb", "a\n  === \nb c"], ["a === b", "a\n===\n", "a\n===\nb\n===\nc", "a\n---\nb"]),
    (Wrapped(">>", "<<"), [">> a <<", ">>a<<"], [">> a", "a <<", ">><<", ">> <<", "<<a>>"]),
    (ShoutedSentence("last"), ["So. YES!", "I see. OK."], ["SO. Yes.", "SO. YES.", "YES."]),
    (NoMark("colons"), ["a; b"], ["a: b"]),
    (UseMark("a slash"), ["and/or"], ["and or"]),
    (EndMark("(done)"), ["So. (done)", "So (DONE)"], ["(done)", "(done) So.", "So."]),
    (SecondSentence("sea"), ["So. Sea!", 'So? "SEA" is.'], ["Sea. So.", "So. The sea.", "So. Seas."]),
    (Signature("Ada"), ["So.\nAda", "So.\n-- ADA"], ["So. Ada", "Ada\nSo.", "Ada"]),
]


@pytest.mark.parametrize(("constraint", "good", "bad"), CASES, ids=[case[0].name for case in CASES])
def test_checks_mean_what_they_say(constraint: Constraint, good: list[str], bad: list[str]) -> None:
    task = Task([], None, (constraint,))
    assert [answer for answer in good if task.followed(answer) != [True]] == []
    assert [answer for answer in [*bad, "", " \n"] if task.followed(answer) != [False]] == []


def test_every_constraint_has_a_case_by_hand() -> None:
    assert {type(constraint) for constraint, _, _ in CASES} == set(ALL_CONSTRAINTS)
