"""What cleaning changes, keeps and drops."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm import run as runs
from keylm.common.documents import Document
from keylm.data.cleaning.benchmark_items import ScoredItem
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.cleaning.decontamination import build_decontaminator
from keylm.data.cleaning.normalization import (
    EMPTY_MESSAGE,
    NO_ASSISTANT,
    NOT_TEXT,
    TOO_SHORT,
    normalize_document,
    normalize_text,
)
from keylm.data.cleaning.personal_data import EMAIL, PHONE
from keylm.recipe import Recipe


@pytest.mark.parametrize(
    ("raw", "normalized"),
    [
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        ("one  \ntwo\t\n  three", "one\ntwo\n  three"),
        ("one\n\n\n\n\n\ntwo\n\n\nthree", "one\n\n\ntwo\n\n\nthree"),
        ("\n\n  one\n\n", "  one"),
        ("one line \u00a0 ", "one line"),
        ("  one line\t\n", "  one line"),
        ("\ufeffb\x00e\x1bl\x07l\x7f", "bell"),
        ("half a pair \ud83e stays out", "half a pair  stays out"),
        ("a\ttab, a naïve 猫, e\u0301 and ﬁne 🦊", "a\ttab, a naïve 猫, e\u0301 and ﬁne 🦊"),
    ],
)
def test_normalized_texts_by_hand(raw, normalized):
    assert normalize_text(raw) == normalized


@given(text=st.text())
def test_normalizing_is_idempotent(text):
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert not re.search(r"[\r\x00-\x08\x0b-\x1f\x7f]| \n|\n\n\n\n", once)


@given(text=st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_marks_that_can_be_read_are_kept(text):
    assert normalize_text(text) == text


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Short.", TOO_SHORT),
        ("", TOO_SHORT),
        (" \n\n ", TOO_SHORT),
        ("0.123, 4.567; 8.901 | 2.345, 6.789; " * 5, NOT_TEXT),
        ("Это вполне обычное предложение.", Document(text="Это вполне обычное предложение.")),
        ("An ordinary sentence, number 7.\n", Document(text="An ordinary sentence, number 7.")),
    ],
)
def test_texts(text, outcome):
    assert normalize_document(Document(text=text), min_document_bytes=20) == outcome


def test_an_empty_text_is_always_dropped():
    assert normalize_document(Document(text="\n"), min_document_bytes=0) == TOO_SHORT


def conversation(*turns):
    return Document(messages=tuple({"role": role, "content": content} for role, content in turns))


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        (conversation(("user", " Hi \r\n"), ("assistant", "\nHo")), conversation(("user", "Hi"), ("assistant", "Ho"))),
        (conversation(("user", "Hi"), ("assistant", " \x00 ")), EMPTY_MESSAGE),
        (conversation(("system", "Be kind."), ("user", "Hi")), NO_ASSISTANT),
        (conversation(), NO_ASSISTANT),
    ],
)
def test_conversations(document, outcome):
    assert normalize_document(document, min_document_bytes=1000) == outcome


PROSE = "The boats leave before the sun is up. They have to be back with the fish and that is a long way to go. " * 5


def cleaner(folder, *filters, **settings):
    """What cleans a source with these filters, by a recipe with these settings."""
    source = {"name": "prose", "type": "installed-docs", "filters": filters}
    values = {"name": "clean", "data": {"sources": [source], "min_document_bytes": 20, "clean": settings}}
    run = runs.create(Recipe.model_validate(values), folder / "run")
    return Cleaner(run, run.recipe.data.sources[0])


def test_documents_are_tidied_and_masked_or_dropped(tmp_path):
    clean_one = cleaner(tmp_path)
    letter = Document(text="Write to ann@mail.example.co.uk, \r\nor call 415-555-2671. ")
    assert clean_one(letter) == Document(text=f"Write to {EMAIL},\nor call {PHONE}.")
    talk = conversation(("user", "Is it ann@mail.net? "), ("assistant", "No: bob@mail.net"))
    assert clean_one(talk) == conversation(("user", f"Is it {EMAIL}?"), ("assistant", f"No: {EMAIL}"))
    assert clean_one(Document(text="Short.")) == TOO_SHORT
    assert clean_one(conversation(("user", "Hi"))) == NO_ASSISTANT


def test_personal_data_is_kept_where_the_recipe_says_so(tmp_path):
    letter = Document(text="Write to ann@mail.example.co.uk, or call 415-555-2671.")
    assert cleaner(tmp_path, personal_data="keep")(letter) == letter


def test_filters_are_the_source_s_and_ask_plain_text_alone(tmp_path):
    menu = "about us and where we are\nlog in or join us now\n" * 3
    talk = conversation(("user", menu.strip()), ("assistant", menu.strip()))
    clean_one = cleaner(tmp_path, "c4", "fineweb")
    assert clean_one(Document(text=menu)) == "c4: too_few_sentences"
    assert clean_one(talk) == talk
    assert clean_one(Document(text="Home\n" + PROSE)) == Document(text=PROSE.strip())
    assert cleaner(tmp_path)(Document(text=menu)) == Document(text=menu.strip())


def test_test_items_are_found_in_texts_and_across_turns(tmp_path):
    question = "what is it that the boats with three men in them have to bring back"
    items = [ScoredItem("boats", [question], ["a bag of fish", "nothing at all"])]
    build_decontaminator(items, tmp_path / "run" / "prepare" / "contamination")
    clean_one = cleaner(tmp_path, decontaminate=["boats"])
    assert clean_one(Document(text=f"{PROSE} So {question.upper()}?")) == "contaminated: boats"
    half = "boats with three men in them have to bring back"
    asked = conversation(("user", f"Say {half}."), ("assistant", "A bag of fish."))
    assert clean_one(asked) == "contaminated: boats"
    assert isinstance(clean_one(conversation(("user", f"Say {half}."), ("assistant", "The fish."))), Document)


def test_the_language_is_asked_of_plain_text(tmp_path):
    fasttext = pytest.importorskip("fasttext", reason="fastText is not installed")
    lines = ["__label__en the boats leave before the sun is up", "__label__fr les bateaux partent avant le soleil"]
    (tmp_path / "lines.txt").write_text("\n".join(lines * 100))
    # Without parts of words (minn, maxn) fastText often meets NaN on so little text, and with them now and then.
    for attempts_left in range(9, -1, -1):
        try:
            model = fasttext.train_supervised(
                str(tmp_path / "lines.txt"), dim=8, epoch=20, minn=2, maxn=3, verbose=0, thread=1
            )
            break
        except RuntimeError as error:
            if "NaN" not in str(error) or not attempts_left:
                raise
    model.save_model(str(tmp_path / "lid.bin"))
    clean_one = cleaner(tmp_path, "c4", language_model=str(tmp_path / "lid.bin"))
    french = "les bateaux partent avant le soleil"
    assert clean_one(Document(text=french)) == "not English"
    assert clean_one(Document(text="the boats leave before the sun is up")) == "c4: too_few_sentences"
    assert clean_one(conversation(("user", french), ("assistant", french))) == conversation(
        ("user", french), ("assistant", french)
    )
