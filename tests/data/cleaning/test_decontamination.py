"""Decontamination: the screen passes on every document that datatrove's own filter would drop."""

from types import SimpleNamespace

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter, NGramsDecontIndexer
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import simplify_text
from hypothesis import given
from hypothesis import strategies as st

from keylm import run as runs
from keylm.common.errors import UserError
from keylm.data.cleaning.benchmark_items import ScoredItem
from keylm.data.cleaning.datatrove_adapters import ENGLISH, HASHES
from keylm.data.cleaning.decontamination import Decontaminator, _letters, build_decontaminator, load_decontaminator
from keylm.recipe import Recipe

CONFIG = NGramsDecontConfig(find_query_ngrams=True, hash_config=HASHES)
QUESTION = "Which of these old machines did the three brothers use to cross the wide river in 1903?"
ANSWERS = [" the small wooden boat that their father built", " no machine at all"]
ITEMS = [
    ScoredItem("rivers", [QUESTION], ANSWERS),
    ScoredItem("cafés", ["Ça va? Le café naïve d'été coûte 3.50 et Zoë y va à pied, déjà à 9 heures."], []),
    ScoredItem("short", ["I am as he is. So we go up to it. As is so, be it on to us."], []),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "contamination"
    build_decontaminator(ITEMS, folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return Decontaminator(folder)


@pytest.fixture(scope="module")
def datatrove(folder):
    block = NGramsDecontFilter(str(folder), CONFIG, language=ENGLISH)
    return lambda text: block.filter(Document(text=text, id="")) is not True


def test_the_index_is_what_datatrove_s_indexer_computes(folder):
    indexer = SimpleNamespace(config=CONFIG, tokenizer=ENGLISH, hash_func=create_hash_func(HASHES))
    expected = {
        number for answer in ANSWERS for number in NGramsDecontIndexer.compute_hashes(indexer, answer, QUESTION)
    }
    assert set(np.fromfile(folder / "rivers.index.hashes", dtype=np.uint64).tolist()) == expected


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (f"They asked: {QUESTION} Nobody knew.", "rivers"),
        ("WHICH of these old machines did the three brothers... use to\n\ncross the WIDE river", "rivers"),
        ("wide river in 1850? The small wooden boat that their father built.", "rivers"),
        ("Which of these old machines did the four brothers use to cross the wide river in 1903?", None),
        ("ca va le cafe naive d ete coute 7 et zoe y va", "cafés"),
        ("as he is so we go up to it as is so be it", "short"),
        ("nothing of the kind", None),
        ("", None),
        ("河を渡る", None),
    ],
)
def test_documents_by_hand(ours, text, task):
    assert ours.contaminating_task(text) == task


# What simplifying treats specially: marks, digits in many scripts, accents that fall, letters that have no lower case.
odd = st.sampled_from("éÉüßıİKÅſﬁœΣς٣１½²'’‘–—“”„«»\u037e\u1fef\u0301\u200b\u2003\x1c\x00.,:;-_/0123456789 \n\tabcXYZ")
texts = st.text(alphabet=odd | st.characters(codec="utf-8"))


@given(text=texts)
def test_letters_are_those_of_the_simplified_text(text):
    simple = simplify_text(text)
    runs = "".join(character if character in "abcdefghijklmnopqrstuvwxyz" else " " for character in simple.lower())
    assert _letters(text).decode().split() == runs.split()


separators = st.text(alphabet=st.sampled_from(" \n\t.,;:!?-–—’'\"()“”/"), min_size=1, max_size=3)
sources = [item.contexts[0] + "".join(item.continuations[:1]) for item in ITEMS]


@st.composite
def planted(draw):
    """Some words of a test item, written otherwise, between other words; often enough of them to be found."""
    words = simplify_text(draw(st.sampled_from(sources))).split()
    start = draw(st.integers(0, max(0, len(words) - 12)))
    chosen = words[start : start + draw(st.integers(10, 14))]
    written = [draw(st.sampled_from([str.upper, str.title, str.lower]))(word) for word in chosen]
    written = [word.replace("0", draw(st.sampled_from(["7", "1.5", "2,000", "٣"]))) for word in written]
    written = [word.replace("e", draw(st.sampled_from(["e", "é", "e\u0301"]))) for word in written]
    return draw(texts) + " " + "".join(word + draw(separators) for word in written) + draw(texts)


@given(text=planted())
def test_behind_the_screen_the_filter_finds_the_same(ours, datatrove, text):
    assert (ours.contaminating_task(text) is not None) == datatrove(text)


def test_the_screen_rejects_other_text(ours):
    generator = np.random.default_rng(0)
    words = simplify_text(" ".join(sources)).split()
    documents = [" ".join(generator.choice(words, size=400)) for _ in range(200)]
    assert not any(map(ours.is_suspect, documents))


def test_a_task_of_nothing_but_numbers_is_refused(tmp_path):
    numbers = ScoredItem("sums", ["1 2 3 4 5 6 7 8 9 10 11 12 13 14"], ["15"])
    with pytest.raises(UserError, match="task `sums` has no 12 words"):
        build_decontaminator([*ITEMS, numbers], tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_without_tasks_there_is_no_index(tmp_path):
    run = runs.create(Recipe(name="plain"), tmp_path / "run")
    assert load_decontaminator(run) is None
    assert not run.stage("prepare").exists()
