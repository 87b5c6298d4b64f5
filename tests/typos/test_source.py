"""Typos as a source of a recipe: what it reads of its base sources, and what a recipe may ask for."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import pytest
from helpers.typo_texts import TALK
from pydantic import ValidationError

from keylm.common.documents import Document, is_held_out
from keylm.data.sources.parents import ParentSources, interleave
from keylm.data.sources.registry import read_source
from keylm.recipe.data import DataConfig
from keylm.recipe.sft import SftConfig
from keylm.recipe.sources import FilesConfig, InstructionsConfig, TyposConfig


def test_streams_are_taken_in_turn() -> None:
    assert list(interleave(["abc", "1", "xy"])) == list("a1xbyc")


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> str:
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
        FilesConfig(name="books", path=write_jsonl(tmp_path / "books.jsonl", books)),
        FilesConfig(name="talks", path=write_jsonl(tmp_path / "talks.jsonl", talks)),
        TyposConfig(name="typos", from_sources=["books", "talks"], num_documents=500, rates=(0.02, 0.1)),
    ]


def numbers(documents: list[Document]) -> set[str]:
    return set(re.findall(r"\d+", " ".join(content for document in documents for content in document.contents)))


def test_held_out_base_documents_are_skipped(mixture) -> None:
    parents = ParentSources(mixture, validation_fraction=0.4)
    documents = list(read_source(mixture[-1], 0, parents=parents))
    assert list(read_source(mixture[-1], 0, parents=parents)) == documents
    bases = [*read_source(mixture[0], 0), *read_source(mixture[1], 0)]
    trained_on = [document for document in bases if not is_held_out(document.digest, 0.4)]
    assert 250 < len(trained_on) < 450
    assert numbers(documents) == numbers(trained_on)
    assert len(documents) == len(trained_on)
    assert {document.messages is None for document in documents} == {True, False}


def test_base_documents_are_cleaned_first(mixture) -> None:
    def cleaner(source):
        def clean(document):
            if document.messages is not None:
                return "no talk"
            return Document(text=document.text.replace("friend", "neighbour"))

        return clean

    parents = ParentSources(mixture, cleaner, validation_fraction=0.5)
    documents = list(read_source(mixture[-1], 0, parents=parents))
    allowed = {
        number
        for document in read_source(mixture[0], 0)
        if not is_held_out(Document(text=document.text.replace("friend", "neighbour")).digest, 0.5)
        for number in numbers([document])
    }
    assert numbers(documents) == allowed
    assert "friend" not in str(documents)


def test_no_more_of_a_base_is_read_than_in_training(mixture) -> None:
    little = mixture[0].model_copy(update={"max_bytes": 700})
    parents = ParentSources([little, *mixture[1:]])
    sizes = [document.num_bytes for document in parents.training_documents(little, read_source(little, 0))]
    assert sum(sizes[:-1]) < 700 <= sum(sizes)


def test_in_sft_only_conversations_are_made() -> None:
    talks = InstructionsConfig(name="talks", num_documents=50)
    source = TyposConfig(name="typos", from_sources=["talks"], num_documents=40)
    documents = list(islice(read_source(source, 0, parents=ParentSources([talks, source])), 40))
    assert len(documents) == 40
    assert all(document.messages and document.messages[-1]["role"] == "assistant" for document in documents)


@pytest.mark.parametrize("of", [["nobody"], ["typos"], ["other"]])
def test_unknown_and_typo_bases_are_refused(of: list[str]) -> None:
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
