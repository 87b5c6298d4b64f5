from __future__ import annotations

from random import Random

from helpers.typo_texts import PROSE, TALK

from keylm.common.documents import Document
from keylm.typos.passages import passages, pieces


def test_passages_are_whole_sentences_of_the_text() -> None:
    results = list(passages(PROSE, Random(0)))
    assert results
    position = 0
    for passage in results:
        position = PROSE.index(passage, position) + len(passage)
        assert passage[-1] in ".”"
        assert passage[0].isupper() or passage[0] == "“"


def test_tables_and_code_give_no_passages() -> None:
    assert not list(
        passages("a | 1 | 2 | 3\nb | 4 | 5 | 6\n" * 9 + "\n\nx = {1: [2, 3]}; y[0] += 5; z(7) != 8;", Random(0))
    )


def test_a_document_gives_few_pieces_of_its_text() -> None:
    (talk,) = pieces(Document(messages=(*TALK, {"role": "user", "content": "Thanks."})), Random(0))
    assert talk.messages == TALK
    results = list(pieces(Document(text="\n\n".join([PROSE] * 20)), Random(0)))
    assert 1 <= len(results) <= 4
    assert all(piece.text in PROSE for piece in results)


def test_a_chat_without_a_short_beginning_gives_none() -> None:
    assert not list(pieces(Document(messages=({"role": "user", "content": "x" * 5000}, TALK[1])), Random(0)))
    assert not list(pieces(Document(messages=(TALK[1],)), Random(0)))
