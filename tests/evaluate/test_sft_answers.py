"""Held-out SFT answers, scored by a model to which every token is equally likely."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers.tiny_run import tiny_run

from keylm.data.prepare.outputs import open_store
from keylm.evaluate import sft_answers
from keylm.model.transformer import KeyLM
from keylm.run import Run
from keylm.stages import run_until
from keylm.tokenizer.tokenizer import Tokenizer

SUBJECTS = (
    "rivers",
    "lanterns",
    "orchards",
    "bridges",
    "harbours",
    "kettles",
    "violins",
    "meadows",
    "glaciers",
    "sparrows",
)


def answer(subject: str, number: int) -> str:
    return (
        f"Most {subject} are older than people think. Visitor {number} wrote a letter about them. Nobody has read it."
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Tokens of 300 conversations, half of them held out, of which some are made to follow constraints too."""
    folder = tmp_path_factory.mktemp("answers")
    talks = [
        [
            {"role": "user", "content": f"Greetings number {number}!"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": f"What is known about {subject}?"},
            {"role": "assistant", "content": answer(subject, number)},
        ]
        for number in range(30)
        for subject in SUBJECTS
    ]
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    of = {"type": "files", "name": "talks", "path": str(path)}
    prose = folder / "prose.txt"
    prose.write_text("\n\n".join(f"{answer(subject, 7)} " * 3 for subject in SUBJECTS))
    parts = {
        "data": {
            "validation_fraction": 0.4,
            "sources": [{"type": "files", "name": "prose", "path": str(prose)}],
        },
        "sft": {
            "sequence_length": 128,
            "batch_tokens": 256,
            "micro_batch_tokens": 128,
            "sources": [of, {"type": "constrained-chat", "name": "verified", "from_source": of}],
        },
    }
    run = tiny_run(folder / "run", **parts)
    run.begin("tokenizer")
    run.finish("tokenizer", {})
    run_until(run, "prepare")
    return run


@pytest.fixture
def uniform_model(run: Run) -> KeyLM:
    model = KeyLM(run.recipe.model)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model.eval()


def test_exactly_the_last_answers_are_scored(run: Run, uniform_model: KeyLM) -> None:
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    store = open_store(run, "sft", "talks", "validation")
    row = sft_answers.answer_bits_per_byte(run, {"sft": uniform_model}, 1000)["talks"]
    assert row["answers"] == store.num_documents > 50
    tokens = size = start = 0
    for end in store.document_ends.tolist():
        text = tokenizer.decode(store.tokens(start, end).tolist())
        said = text[text.index("Most ") : text.index("read it.") + len("read it.")]
        tokens, size, start = tokens + len(tokenizer.encode(said)) + 1, size + len(said.encode()), end
    assert row["sft"] == pytest.approx(tokens * math.log2(run.recipe.model.vocab_size) / size, rel=1e-3)


def test_constrained_answers_next_to_the_originals(run: Run, uniform_model: KeyLM) -> None:
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    (row,) = sft_answers.constrained_answer_bits_per_byte(run, uniform_model, 1000).values()
    (source,) = [source for source in run.recipe.sft.sources if source.name == "verified"]
    pairs = list(sft_answers._held_out_pairs(run, source))
    assert row["answers"] == len(pairs) > 50
    held_out = open_store(run, "sft", "talks", "validation")
    unread = tokenizer.decode(held_out.tokens(0, held_out.num_tokens).tolist())
    assert all(real in unread for real, _ in pairs)
    for key, side in (("original", 0), ("constrained", 1)):
        texts = [pair[side] for pair in pairs]
        # Of an answer that is longer than the context, as much is scored as fits.
        lengths = [min(len(tokenizer.encode(text)), run.recipe.model.max_position_embeddings) for text in texts]
        bits = sum(lengths) * math.log2(run.recipe.model.vocab_size)
        assert row[key] == pytest.approx(bits / sum(len(text.encode()) for text in texts), rel=1e-3)
    assert row["relative_increase"] == pytest.approx(row["constrained"] / row["original"] - 1, abs=1e-3)
    assert all(real.startswith("Most ") for real, _ in pairs)


def test_the_number_of_answers_is_limited(run: Run, uniform_model: KeyLM) -> None:
    assert {row["answers"] for row in sft_answers.answer_bits_per_byte(run, {"sft": uniform_model}, 3).values()} == {3}
    assert {row["answers"] for row in sft_answers.constrained_answer_bits_per_byte(run, uniform_model, 3).values()} == {
        3
    }
