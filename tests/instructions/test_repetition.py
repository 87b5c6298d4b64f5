"""Drills: deterministic, mostly copies, and free of the words that evaluation holds out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from keylm.common.documents import Document, is_held_out
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.registry import read_source
from keylm.instructions import repetition
from keylm.instructions.word_lists import is_held_out_word, word_list
from keylm.recipe.data import DataConfig
from keylm.recipe.sources import FilesConfig, RepetitionConfig


def test_a_document_depends_on_seed_and_number_alone() -> None:
    first = list(repetition.generate_repetition(50, seed=1))
    assert list(repetition.generate_repetition(20, seed=1)) == first[:20]
    assert list(repetition.generate_repetition(50, seed=2)) != first


def test_a_phrase_comes_five_times_or_more() -> None:
    for text in repetition.generate_repetition(300, seed=0):
        head = text[: len(text) // 9 // 2].casefold()
        assert text.casefold().count(head) >= 5, text


def test_half_of_the_documents_with_words_of_sources_are_as_long_as_sentences() -> None:
    words = [f"Zq{number}" for number in range(500)]
    texts = list(repetition.generate_repetition(300, seed=0, source_words=words))
    assert list(repetition.generate_repetition(300, seed=0, source_words=words)) == texts
    # Those with their words in other forms have the words of these, too.
    texts = [text for text in texts if "It goes well with" not in text]
    num_distinct = [len(set(re.findall(r"\w+", text.lower()))) for text in texts]
    num_words = [len(re.findall(r"\w+", text)) for text in texts]
    long = [total / distinct for distinct, total in zip(num_distinct, num_words, strict=True) if distinct > 10]
    assert 100 < len(long) < 200
    assert all(repeats < 6 for repeats in long)


def test_a_quarter_have_the_same_words_in_other_forms() -> None:
    words = [f"zq{number}" for number in range(500)]
    texts = list(repetition.generate_repetition(400, seed=0, source_words=words))
    quoted = [text for text in texts if '"' in text]
    assert 40 < len(quoted) < 100
    for text in quoted:
        lines = [re.findall(r"zq\d+", line.lower()) for line in text.splitlines()]
        assert all(line == lines[0] for line in lines), text


def test_no_held_out_word_is_repeated() -> None:
    drilled = set(re.findall(r"[a-z]+", " ".join(repetition.generate_repetition(3000, seed=0)).lower()))
    held_out = {word.lower() for name in ("words", "nouns", "modifiers") for word in word_list(name, held_out=True)}
    # Random letters can spell a short word by chance.
    assert not {word for word in drilled & held_out if len(word) > 6}
    assert len(drilled & {word.lower() for word in word_list("words", held_out=False)}) > 300


def test_words_of_sources_are_distinct_and_not_held_out() -> None:
    held_out = word_list("nouns", held_out=True)[0]
    chat = Document(messages=({"role": "user", "content": f"Harbour! {held_out} in 1923: Kiel, Kiel and a kiel?"},))
    texts = [Document(text="It's Kiel."), chat]
    wanted = ["It", "Kiel", "Harbour", "in", "1923", "and", "kiel"]
    assert repetition.words_of(texts) == [word for word in wanted if not is_held_out_word(word)]


def test_repetition_uses_words_of_trained_documents(tmp_path: Path) -> None:
    rows = [{"text": f"Zq{number}x is the name of this one."} for number in range(200)]
    (tmp_path / "names.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = FilesConfig(name="names", path=str(tmp_path / "names.jsonl"))
    source = RepetitionConfig(name="drills", from_sources=["names"], num_documents=1000)
    parents = ParentSources([names, source], validation_fraction=0.5)
    documents = list(read_source(source, 3, parents=parents))
    assert list(read_source(source, 3, parents=parents)) == documents
    drilled = set(re.findall(r"zq\d+x", str(documents).lower()))
    trained_on = [row["text"] for row in rows if not is_held_out(Document(text=row["text"]).digest, 0.5)]
    allowed = {name for name in re.findall(r"zq\d+x", str(trained_on).lower()) if not is_held_out_word(name)}
    assert drilled == allowed
    assert 40 < len(allowed) < 130


def test_repetition_of_repetition_is_refused() -> None:
    texts = [
        {"type": "installed-docs", "name": "docs"},
        {"type": "repetition", "name": "drills"},
        {"type": "repetition", "name": "more", "from_sources": ["docs", "drills"]},
    ]
    with pytest.raises(
        ValidationError, match="`from_sources` of `more` names `drills`, which is not a source it can be made from"
    ):
        DataConfig.model_validate({"sources": texts})
