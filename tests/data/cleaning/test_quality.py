"""Quality and language: datatrove's filters by name, and a small fastText model that is trained here."""

import pytest
from datatrove.data import Document as Page
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from hypothesis import given
from hypothesis import strategies as st

from keylm.common.errors import UserError
from keylm.data.cleaning import quality
from keylm.data.cleaning.datatrove_adapters import ENGLISH

PROSE = (
    "The harbour lies behind the hill, and the boats that fish there leave before the sun is up. Each of them has a "
    "crew of three. They know the water well, but they have to watch the weather with care.\n"
    "In winter the wind turns to the north. Then nobody leaves for days, and the nets are mended in the long sheds. "
    "Is it quiet in the town? It is, and people like to be at home in the evening."
)


def test_good_prose_passes_all_filters():
    for name in ("gopher-quality", "gopher-repetition", "c4", "fineweb"):
        assert quality.quality_filter(name)(PROSE) == (PROSE, None)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("gopher-quality", "Three short words.", "gopher-quality: gopher_short_doc"),
        ("gopher-quality", "lamp tree stone " * 30, "gopher-quality: gopher_enough_stop_words"),
        ("gopher-repetition", f"{PROSE}\n\n" * 4, "gopher-repetition: dup_para_frac"),
        ("c4", PROSE + "\nfunction sum(a, b) { return a + b.", "c4: curly_bracket"),
        ("c4", "One. Two.", "c4: too_few_sentences"),
        ("fineweb", "home\nabout us\nlog in\nhelp\n" * 3, "fineweb: line_punct_ratio"),
    ],
)
def test_reasons(name, text, reason):
    assert quality.quality_filter(name)(text) == (text, reason)


def test_c4_removes_lines_from_what_it_keeps():
    kept, reason = quality.quality_filter("c4")(PROSE + "\nSkip to content\nAll of this is javascript, they say.")
    assert (kept, reason) == (PROSE, None)


@pytest.mark.parametrize("text", ["", "one", "Mr. Lee's café isn't far; 3.5 km (or so)... “Yes!” he said. Go"])
def test_words_and_sentences_lose_only_white_space(text):
    assert "".join(ENGLISH.word_tokenize(text)) == "".join(text.split())
    assert [text[start:stop] for start, stop in ENGLISH.span_tokenize(text)] == ENGLISH.sent_tokenize(text)
    assert "".join("".join(ENGLISH.sent_tokenize(text)).split()) == "".join(text.split())


def test_words_and_sentences_by_hand():
    text = "Don't stop! It is 3.5 km (or so)... “Yes?” he said. The end"
    assert ENGLISH.word_tokenize(text)[:4] == ["Don't", "stop", "!", "It"]
    assert ENGLISH.sent_tokenize(text) == ["Don't stop!", "It is 3.5 km (or so)...", "“Yes?”", "he said.", "The end"]


words = st.sampled_from(
    ["the", "of", "stone", "and", "that", "a", "to", "lamp.", "tree!", "#", "...", "-", "1904", "\n", "\n\n"]
)


@given(text=st.lists(words, min_size=40, max_size=120).map(" ".join))
def test_answers_are_those_of_datatrove_s_objects(text):
    blocks = {
        "gopher-quality": GopherQualityFilter(language=ENGLISH),
        "gopher-repetition": GopherRepetitionFilter(language=ENGLISH),
        "c4": C4QualityFilter(language=ENGLISH),
        "fineweb": FineWebQualityFilter(language=ENGLISH),
    }
    for name, block in blocks.items():
        page = Page(text=text, id="")
        answer = block.filter(page)
        expected = (page.text, None) if answer is True else (text, f"{name}: {answer[1]}")
        assert quality.quality_filter(name)(text) == expected


ENGLISH_LINES = ["the boat is on the water", "they walk to the old house", "there is a light in the garden"]
FRENCH_LINES = ["le bateau est sur la rivière", "ils vont vers la vieille maison", "il y a une lampe dans le jardin"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    fasttext = pytest.importorskip("fasttext", reason="fastText is not installed")
    folder = tmp_path_factory.mktemp("fasttext")
    lines = [f"__label__en {line}" for line in ENGLISH_LINES] + [f"__label__fr {line}" for line in FRENCH_LINES]
    (folder / "lines.txt").write_text("\n".join(lines * 50))
    trained = fasttext.train_supervised(str(folder / "lines.txt"), dim=8, epoch=20, minn=2, maxn=3, verbose=0, thread=1)
    trained.save_model(str(folder / "lid.bin"))
    return folder / "lid.bin"


def test_only_english_passes(model):
    english = quality.language_filter(str(model), 0.65)
    for line in ENGLISH_LINES:
        assert english(f"{line}\n{line}") == (f"{line}\n{line}", None)
    for line in FRENCH_LINES:
        assert english(line) == (line, quality.NOT_ENGLISH)


def test_the_score_is_the_model_s_probability_of_english(model):
    import fasttext

    text = "the old maison is on la rivière"
    labels, shares = fasttext.load_model(str(model)).predict(text, k=2)
    share = dict(zip(labels, shares, strict=True))["__label__en"]
    assert quality.language_filter(str(model), share - 0.01)(text)[1] is None
    assert quality.language_filter(str(model), share + 0.01)(text)[1] == quality.NOT_ENGLISH


def test_a_model_that_cannot_tell_english_is_refused(tmp_path):
    fasttext = pytest.importorskip("fasttext", reason="fastText is not installed")
    (tmp_path / "lines.txt").write_text("__label__de ja\n__label__fr oui\n" * 20)
    fasttext.train_supervised(
        str(tmp_path / "lines.txt"), dim=8, epoch=20, minn=2, maxn=3, verbose=0, thread=1
    ).save_model(str(tmp_path / "other.bin"))
    with pytest.raises(UserError, match="no label `en`"):
        quality.language_filter(str(tmp_path / "other.bin"), 0.65)
    with pytest.raises(UserError, match="not a fastText model"):
        quality.language_filter(str(tmp_path / "lines.txt"), 0.65)
    with pytest.raises(UserError, match="no file"):
        quality.language_filter(str(tmp_path / "missing.bin"), 0.65)


def test_without_fasttext_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "lid.bin").touch()
    monkeypatch.setattr("datatrove.utils._import_utils._is_package_available", lambda _: False)
    with pytest.raises(UserError, match="pip install fasttext-numpy2-wheel fasteners"):
        quality.language_filter(str(tmp_path / "lid.bin"), 0.65)
