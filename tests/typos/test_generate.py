from __future__ import annotations

from pathlib import Path

import pytest
from helpers.typo_texts import PROSE, TALK

from keylm.common.documents import Document
from keylm.recipe.sources import TyposConfig
from keylm.typos.generate import cut_near, generate_typos


def base_documents(count: int) -> list[Document]:
    return [Document(text=f"Chapter of the {number} kind. {PROSE}") for number in range(count)]


def test_a_document_depends_on_base_index_and_seed() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], num_documents=60)
    first = list(generate_typos(base_documents(40), source, 1))
    assert len(first) == 60
    assert list(generate_typos(base_documents(90), source, 1)) == first
    assert list(generate_typos(base_documents(40), source, 2)) != first


def test_only_as_many_bases_are_read_as_are_needed() -> None:
    taken = []
    documents = (taken.append(document) or document for document in base_documents(1000))
    assert (
        len(list(generate_typos(documents, TyposConfig(name="typos", from_sources=["a"], num_documents=10), 0))) == 10
    )
    assert len(taken) <= 10


def test_the_share_of_pairs_is_the_one_asked_for() -> None:
    talks = [Document(messages=({"role": "user", "content": f"{number} {PROSE}"}, TALK[1])) for number in range(600)]
    source = TyposConfig(name="typos", from_sources=["a"], num_documents=600, pair_fraction=0.25)
    going_on = [document for document in generate_typos(talks, source, 0) if document.messages[-1] == TALK[1]]
    assert len(going_on) / 600 == pytest.approx(0.75, abs=0.05)


def test_the_assistant_makes_no_typos() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], pair_fraction=0.0, rates=(0.1, 0.2))
    (document,) = generate_typos([Document(messages=TALK)], source, 0)
    for message, original in zip(document.messages, TALK, strict=True):
        assert message["role"] == original["role"]
        assert (message["content"] == original["content"]) == (original["role"] == "assistant")


def test_only_the_beginning_is_mistyped() -> None:
    source = TyposConfig(name="typos", from_sources=["a"], pair_fraction=0.0, rates=(0.2, 0.2), num_documents=200)
    for document in generate_typos(base_documents(60), source, 0):
        assert document.text
        assert document.text[-len(document.text) // 4 :] in PROSE
    assert cut_near("one two three four", 0.5) == len("one two")
    assert cut_near("word", 0.5) == 4


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
    documents = list(
        generate_typos([text, talk, text], TyposConfig(name="typos", from_sources=["a"], pair_fraction=pairs), 3)
    )
    for content in documents[number].contents:
        assert " ".join(content.split()) in page
