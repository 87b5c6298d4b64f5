"""Typos: the keyboard, the dictionary, the error model, and the documents made with them."""

from __future__ import annotations

import importlib.util
import json
import re
import string
from collections import Counter
from importlib.resources import files
from itertools import islice
from pathlib import Path
from random import Random

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from keylm.common.documents import Document, is_held_out
from keylm.data.sources.parents import ParentSources, interleave
from keylm.data.sources.registry import read_source
from keylm.recipe.data import DataConfig
from keylm.recipe.sft import SftConfig
from keylm.recipe.sources import FilesConfig, InstructionsConfig, TyposConfig
from keylm.typos import framings
from keylm.typos.error_model import edit_distance, mistype
from keylm.typos.generate import cut_near, generate_typos
from keylm.typos.keyboard import neighbours
from keylm.typos.misspellings import misspellings
from keylm.typos.passages import passages, pieces

PROSE = (
    "The morning train was late again, so Margaret walked along the river and didn't hurry at all. She believed that "
    "nobody would receive her before eleven, and she thought about the letter which her brother had written. "
    "“It's definitely his handwriting,” she'd said, although the address on the envelope looked different. Every "
    "beginning is difficult; this one happened to be harder than most, because their business had separate accounts."
)
TALK = (
    {"role": "user", "content": "What is the weather going to be like tomorrow morning?"},
    {"role": "assistant", "content": "It will rain until noon, I believe."},
    {"role": "user", "content": "Should I bring my umbrella to the garden party then?"},
    {"role": "assistant", "content": "Yes, that would be wise."},
)
NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "awedzx", "d": "serfxc", "f": "drtgcv", "g": "ftyhvb", "h": "gyujbn", "j": "huiknm",
    "k": "jiolm", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
"""The keys that touch each key, read off a keyboard."""

EVERYDAY = st.text(st.sampled_from(string.ascii_letters + string.digits + " \n\t'.,!?-`/@éß東<|>"), max_size=300)


def levenshtein(first: str, second: str) -> int:
    return nltk.edit_distance(first, second)


def test_the_keys_around_a_key() -> None:
    assert {letter: set(neighbours(letter)[0]) for letter in string.ascii_lowercase} == {
        letter: set(around) for letter, around in NEIGHBOURS.items()
    }


def test_nearer_keys_are_likelier() -> None:
    weights = dict(zip(*neighbours("g"), strict=True))
    assert weights["f"] == pytest.approx(weights["h"])
    assert weights["f"] > weights["t"] > weights["b"] > weights["y"]


def test_most_wrong_keys_are_in_the_same_row() -> None:
    """Grudin (1983): 59% of novices' substitutions."""
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    total = same = 0.0
    for letter in filter(str.isalpha, PROSE.lower()):
        keys, weights = neighbours(letter)
        row = next(row for row in rows if letter in row)
        total += 1
        same += sum(weight for key, weight in zip(keys, weights, strict=True) if key in row) / sum(weights)
    assert same / total == pytest.approx(0.59, abs=0.02)


def test_misspellings_are_the_dictionary_backwards() -> None:
    text = files("codespell_lib").joinpath("data/dictionary.txt").read_text(encoding="utf-8")
    for word in ("receive", "definitely", "because", "the", "their", "didn't", "tomorrow"):
        expected = re.findall(rf"^([a-z']+)->{re.escape(word)}$", text, re.MULTILINE | re.IGNORECASE)
        assert expected
        assert list(misspellings(word)) == [wrong.lower() for wrong in expected]
    assert "recieve" in misspellings("receive")
    assert misspellings("xylograph") == ()


@pytest.mark.parametrize("word", ["cache", "a lot", "you're"])
def test_a_misspelling_that_can_mean_several_words_is_not_used(word: str) -> None:
    """`ache->cache, ache`, `alot->a lot, allot` and `youre->your, you're` are the dictionary's."""
    assert not {"ache", "alot", "youre"} & set(misspellings(word))


@given(text=EVERYDAY)
def test_nothing_is_mistyped_at_rate_zero(text: str) -> None:
    assert mistype(text, 0.0, Random(0)) == text


@given(text=EVERYDAY, rate=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_the_same_seed_makes_the_same_typos_and_lines_stay_lines(text: str, rate: float, seed: int) -> None:
    typed = mistype(text, rate, Random(seed))
    assert typed == mistype(text, rate, Random(seed))
    assert typed.count("\n") == text.count("\n")
    for line, typed_line in zip(text.split("\n"), typed.split("\n"), strict=True):
        assert typed_line[: len(line) - len(line.lstrip())] == line[: len(line) - len(line.lstrip())]
        assert re.sub(r"[A-Za-z' ]", "", typed_line) == re.sub(r"[A-Za-z' ]", "", line)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.1, 0.2])
def test_the_rate_is_realised(rate: float) -> None:
    """By nltk's Levenshtein distance, over all characters of the text; one in twenty is neither letter nor space."""
    distances = [levenshtein(PROSE, mistype(PROSE, rate, Random(seed))) for seed in range(12)]
    assert sum(distances) / len(distances) / len(PROSE) == pytest.approx(rate, rel=0.15)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_more_characters_are_mistyped_than_asked_for(seed: int) -> None:
    assert levenshtein(PROSE, mistype(PROSE, 0.1, Random(seed))) <= 0.1 * len(PROSE) + 1


@given(first=st.text("abc", max_size=8), second=st.text("abc", max_size=8))
def test_the_edit_distance_is_levenshtein_s(first: str, second: str) -> None:
    assert edit_distance(first, second) == levenshtein(first, second)


@pytest.mark.parametrize(
    "text",
    [
        "3.14 1,024 2nd x86 90% $5 12:30",
        "https://example.org/the/morning?page=two someone@example.org example.org",
        "`for line in lines` and\n```\nprint morning\n```\n    indented code here\n\tand here",
        "<|im_start|> <|im_end|> <b>bold</b> snake_case camelCase McDonald HTML --verbose f(x) and/or",
        "naïve Москва 東京 straße café",
    ],
)
def test_what_is_not_prose_is_left_alone(text: str) -> None:
    left = re.sub(r"(?<=` )and(?=\n)", "", text)
    for seed in range(50):
        assert re.sub(r"(?<=` )\w*(?=\n)", "", mistype(text, 0.5, Random(seed))) == left


def test_words_that_must_be_kept_are_kept() -> None:
    kept = {"margaret", "letter", "didn't", "definitely"}
    for seed in range(30):
        typed = mistype(PROSE, 0.3, Random(seed), kept)
        for word in ("Margaret", "didn't", "letter", "definitely"):
            assert re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", typed), (word, typed)


def test_every_kind_of_error_is_made() -> None:
    found = Counter[str]()
    for seed in range(600):
        typed = mistype("The dog didn't eat apples.", 0.05, Random(seed))
        found[typed] += 1
    for slip in (
        "THe dog didn't eat apples.",
        "the dog didn't eat apples.",
        "The dog didnt eat apples.",
        "Thedog didn't eat apples.",
        "The dog didn't eat aples.",
        "The dog didn't eat applles.",
        "The dog didn't eat apple.",
        "The fog didn't eat apples.",
    ):
        assert found[slip], slip
    swapped = {mistype("house", 0.4, Random(seed)) for seed in range(300)}
    assert {"huose", "hosue"} <= swapped
    assert "recieve" in {mistype("receive", 0.3, Random(seed)) for seed in range(300)}


def test_passages_are_whole_sentences_of_the_text() -> None:
    found = list(passages(PROSE, Random(0)))
    assert found
    position = 0
    for passage in found:
        position = PROSE.index(passage, position) + len(passage)
        assert passage[-1] in ".”"
        assert passage[0].isupper() or passage[0] == "“"


def test_tables_and_code_give_no_passages() -> None:
    assert not list(
        passages("a | 1 | 2 | 3\nb | 4 | 5 | 6\n" * 9 + "\n\nx = {1: [2, 3]}; y[0] += 5; z(7) != 8;", Random(0))
    )


def test_of_one_document_come_few_pieces_and_all_of_its_text() -> None:
    (talk,) = pieces(Document(messages=(*TALK, {"role": "user", "content": "Thanks."})), Random(0))
    assert talk.messages == TALK
    found = list(pieces(Document(text="\n\n".join([PROSE] * 20)), Random(0)))
    assert 1 <= len(found) <= 4
    assert all(piece.text in PROSE for piece in found)


def test_a_talk_without_a_short_beginning_gives_none() -> None:
    assert not list(pieces(Document(messages=({"role": "user", "content": "x" * 5000}, TALK[1])), Random(0)))
    assert not list(pieces(Document(messages=(TALK[1],)), Random(0)))


@pytest.mark.parametrize("framing", [*framings.PLAIN, *framings.PLAIN_BACKWARDS])
def test_a_framing_holds_each_text_once(framing: str) -> None:
    assert (framing.count("{typed}"), framing.count("{meant}")) == (1, 1)


@pytest.mark.parametrize("turns", [*framings.CHAT, *framings.CHAT_BACKWARDS])
def test_a_question_holds_one_text_and_its_answer_the_other(turns: tuple[str, str]) -> None:
    slots = [re.findall(r"\{(\w+)\}", turn) for turn in turns]
    assert sorted(map(tuple, slots)) == [("meant",), ("typed",)]


@given(meant=st.text(min_size=1), typed=st.text(min_size=1), seed=st.integers(0, 999), is_talk=st.booleans())
def test_both_texts_are_in_a_pair_word_for_word(meant: str, typed: str, seed: int, is_talk: bool) -> None:
    pair = framings.pair(typed, meant, is_talk, Random(seed))
    assert pair.messages is not None or not is_talk
    whole = "\0".join(pair.contents)
    assert meant in whole
    assert typed in whole


def base(count: int) -> list[Document]:
    return [Document(text=f"Chapter of the {number} kind. {PROSE}") for number in range(count)]


def test_a_document_depends_on_its_base_its_number_and_the_seed_alone() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], num_documents=60)
    first = list(generate_typos(base(40), source, 1))
    assert len(first) == 60
    assert list(generate_typos(base(90), source, 1)) == first
    assert list(generate_typos(base(40), source, 2)) != first


def test_only_as_many_bases_are_read_as_are_needed() -> None:
    taken = []
    documents = (taken.append(document) or document for document in base(1000))
    assert (
        len(list(generate_typos(documents, TyposConfig(name="typos", from_sources=["a"], num_documents=10), 0))) == 10
    )
    assert len(taken) <= 10


def test_the_share_of_pairs_is_the_one_asked_for() -> None:
    talks = [Document(messages=({"role": "user", "content": f"{number} {PROSE}"}, TALK[1])) for number in range(600)]
    source = TyposConfig(name="typos", from_sources=["a"], num_documents=600, pair_fraction=0.25)
    going_on = [document for document in generate_typos(talks, source, 0) if document.messages[-1] == TALK[1]]
    assert len(going_on) / 600 == pytest.approx(0.75, abs=0.05)


def test_in_a_conversation_the_assistant_types_right() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], pair_fraction=0.0, rates=(0.1, 0.2))
    (document,) = generate_typos([Document(messages=TALK)], source, 0)
    for made, spoken in zip(document.messages, TALK, strict=True):
        assert made["role"] == spoken["role"]
        assert (made["content"] == spoken["content"]) == (spoken["role"] == "assistant")


def test_a_beginning_is_mistyped_and_what_follows_is_not() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], pair_fraction=0.0, rates=(0.2, 0.2), num_documents=200)
    for document in generate_typos(base(60), source, 0):
        assert document.text
        assert document.text[-len(document.text) // 4 :] in PROSE
    assert cut_near("one two three four", 0.5) == len("one two")
    assert cut_near("word", 0.5) == 4


def test_streams_are_taken_in_turn() -> None:
    assert list(interleave(["abc", "1", "xy"])) == list("a1xbyc")


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def mixture(tmp_path: Path) -> list[FilesConfig | TyposConfig]:
    books = [{"text": f"This is the story about number {number}, which was told by a friend."} for number in range(300)]
    talks = [
        {"messages": [{"role": "user", "content": f"Please tell me about the number {number} here"}, TALK[1]]}
        for number in range(300, 600)
    ]
    return [
        FilesConfig(name="books", path=write(tmp_path / "books.jsonl", books)),
        FilesConfig(name="talks", path=write(tmp_path / "talks.jsonl", talks)),
        TyposConfig(name="typos", from_sources=["books", "talks"], num_documents=500, rates=(0.02, 0.1)),
    ]


def numbers(documents: list[Document]) -> set[str]:
    return set(re.findall(r"\d+", " ".join(content for document in documents for content in document.contents)))


def test_a_source_is_read_end_to_end_without_what_is_held_out(mixture) -> None:
    parents = ParentSources(mixture, validation_fraction=0.4)
    made = list(read_source(mixture[-1], 0, parents=parents))
    assert list(read_source(mixture[-1], 0, parents=parents)) == made
    bases = [*read_source(mixture[0], 0), *read_source(mixture[1], 0)]
    trained_on = [document for document in bases if not is_held_out(document.digest, 0.4)]
    assert 250 < len(trained_on) < 450
    assert numbers(made) == numbers(trained_on)
    assert len(made) == len(trained_on)
    assert {document.messages is None for document in made} == {True, False}


def test_a_base_is_cleaned_first_and_held_out_as_cleaned(mixture) -> None:
    def cleaner(source):
        def clean(document):
            if document.messages is not None:
                return "no talk"
            return Document(text=document.text.replace("friend", "neighbour"))

        return clean

    parents = ParentSources(mixture, cleaner, validation_fraction=0.5)
    made = list(read_source(mixture[-1], 0, parents=parents))
    allowed = {
        number
        for document in read_source(mixture[0], 0)
        if not is_held_out(Document(text=document.text.replace("friend", "neighbour")).digest, 0.5)
        for number in numbers([document])
    }
    assert numbers(made) == allowed
    assert "friend" not in str(made)


def test_no_more_of_a_base_is_read_than_training_reads(mixture) -> None:
    little = mixture[0].model_copy(update={"max_bytes": 700})
    parents = ParentSources([little, *mixture[1:]])
    sizes = [document.num_bytes for document in parents.training_documents(little, read_source(little, 0))]
    assert sum(sizes[:-1]) < 700 <= sum(sizes)


def test_in_sft_only_conversations_are_made() -> None:
    talks = InstructionsConfig(name="talks", num_documents=50)
    source = TyposConfig(name="typos", from_sources=["talks"], num_documents=40)
    made = list(islice(read_source(source, 0, parents=ParentSources([talks, source])), 40))
    assert len(made) == 40
    assert all(document.messages and document.messages[-1]["role"] == "assistant" for document in made)


@pytest.mark.parametrize("of", [["nobody"], ["typos"], ["other"]])
def test_typos_of_what_is_not_there_or_of_typos_are_refused(of: list[str]) -> None:
    texts = [
        {"type": "installed-docs", "name": "docs"},
        {"type": "typos", "name": "typos", "from_sources": of},
        {"type": "typos", "name": "other", "from_sources": ["docs"]},
    ]
    for section in (DataConfig, SftConfig):
        with pytest.raises(ValidationError, match=f"`from_sources` of `typos` names `{of[0]}`, which is not a source"):
            section.model_validate({"sources": texts})


@pytest.mark.parametrize("rates", [(0.2, 0.1), (-0.1, 0.1), (0.1, 0.6)])
def test_rates_must_rise_and_be_shares(rates: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="two rising fractions"):
        TyposConfig(name="typos", from_sources=["a"], rates=rates)


@pytest.mark.parametrize(("pairs", "number"), [(0.0, 0), (0.0, 1), (1.0, 1), (1.0, 2)])
def test_the_examples_of_the_page_are_real(pairs: float, number: int) -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "typos.md").read_text().split())
    text = Document(
        text="I don't think they're coming tomorrow, because the weather is going to be terrible. We should probably "
        "receive a message before then. The garden party will have to wait until the following weekend, and nobody "
        "will be sorry."
    )
    talk = Document(
        messages=(
            {"role": "user", "content": "Which museums in the city are open on Sunday evening?"},
            {"role": "assistant", "content": "The art museum is open until nine."},
        )
    )
    made = list(
        generate_typos([text, talk, text], TyposConfig(name="typos", from_sources=["a"], pair_fraction=pairs), 3)
    )
    for content in made[number].contents:
        assert " ".join(content.split()) in page


@pytest.mark.parametrize(
    ("meant", "typed"),
    [
        ("tomorrow", "tomorow"),
        ("probably", "pobably"),
        ("should", "shpuld"),
        ("definitely", "definately"),
        ("receive", "recieve"),
        ("think", "thikn"),
        ("they're", "theyre"),
        ("Monday", "monday"),
        ("beginners", "beginers"),
        ("weather", "weatther"),
        ("receive", "receigve"),
        ("The", "THe"),
        ("The", "tHe"),
    ],
)
def test_the_errors_of_the_page_are_made(meant: str, typed: str) -> None:
    assert f"`{typed}`" in (Path(__file__).parents[2] / "docs" / "typos.md").read_text()
    assert any(mistype(meant, rate, Random(seed)) == typed for seed in range(3000) for rate in (0.12, 0.4))


def test_codespell_itself_is_not_imported() -> None:
    """Its code is under the GPL; its dictionary is read as a file."""
    spec = importlib.util.find_spec("keylm.typos.misspellings")
    assert spec is not None
    assert "import codespell" not in Path(spec.origin).read_text()
