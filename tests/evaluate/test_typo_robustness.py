"""Typo robustness, on models whose result is known."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from keylm.common.documents import Message
from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.evaluate import typo_robustness
from keylm.evaluate.typo_robustness import (
    RATES,
    BpbIncrease,
    Passage,
    bpb_increases,
    constrained_requests,
    passage_bits,
    sample_passages,
)
from keylm.inference.answers import Answer
from keylm.instructions.constraints.catalog import Frequency, Keywords
from keylm.instructions.mistyped import mistyped_task
from keylm.instructions.task import Task, user_message
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.tokenizer.training import train_tokenizer

TEXT = (
    "The old keeper climbed the narrow stairs every evening and lit the lamp before the fog came in from the sea. "
    "Nobody in the village remembered a night without its light, and nobody believed that there would ever be one. "
)
CHOSEN = [Passage(f"Number {n}: {TEXT[:90]}", TEXT[90 : 150 + 7 * n]) for n in range(9)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 5, "user assistant Write about tides"], 300, "qwen2")


@pytest.fixture
def model(tiny_model) -> KeyLM:
    model = init_model(tiny_model, seed=0).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    return model


def test_bits_of_each_continuation_alone(model: KeyLM, tokenizer: Tokenizer) -> None:
    """Batched, sorted and padded, against one passage at a time and torch's own log-softmax."""
    all_bits = passage_bits(model, tokenizer, CHOSEN, length=200)
    for passage, bits in zip(CHOSEN, all_bits, strict=True):
        before = [tokenizer.end_of_text, *tokenizer.encode(passage.beginning)]
        after = tokenizer.encode(passage.continuation)
        stream = torch.tensor([*before, *after])
        p = model.logits(stream[None, :-1]).log_softmax(-1)[0]
        nats = -sum(p[position - 1, stream[position]].item() for position in range(len(before), len(stream)))
        assert bits == pytest.approx(nats / math.log(2), rel=1e-4)


def test_a_long_passage_loses_its_first_tokens(model: KeyLM, tokenizer: Tokenizer) -> None:
    passage = Passage(TEXT, TEXT[:30])
    after = tokenizer.encode(passage.continuation)
    tail = torch.tensor([*tokenizer.encode(passage.beginning), *after][-(len(after) + 6) :])
    p = model.logits(tail[None, :-1]).log_softmax(-1)[0]
    nats = -sum(p[position - 1, tail[position]].item() for position in range(6, len(tail)))
    (bits,) = passage_bits(model, tokenizer, [passage], length=len(after) + 5)
    assert bits == pytest.approx(nats / math.log(2), rel=1e-4)


def test_a_model_that_ignores_context_loses_nothing(tiny_model, tokenizer: Tokenizer) -> None:
    uniform = init_model(tiny_model, seed=0).eval()
    torch.nn.init.zeros_(uniform.lm_head.weight)
    increases = bpb_increases(uniform, tokenizer, CHOSEN, 200, seed=0)
    total = sum(len(tokenizer.encode(passage.continuation)) for passage in CHOSEN) * math.log2(300)
    for row in increases.values():
        assert row.bits_per_byte == pytest.approx(total / sum(passage.num_bytes for passage in CHOSEN))
        assert row.increase == pytest.approx(0, abs=1e-9)
        assert row.standard_error == pytest.approx(0, abs=1e-9)


def test_a_model_that_reads_context_sees_the_typos(model: KeyLM, tokenizer: Tokenizer) -> None:
    increases = bpb_increases(model, tokenizer, CHOSEN, 200, seed=0)
    assert increases == bpb_increases(model, tokenizer, CHOSEN, 200, seed=0)
    assert list(increases) == list(RATES)
    assert (increases[0.0].increase, increases[0.0].standard_error) == (0, 0)
    assert all(increases[rate].increase != 0 and increases[rate].standard_error > 0 for rate in RATES[1:])
    for row in increases.values():
        assert row.bits_per_byte - row.increase == pytest.approx(increases[0.0].bits_per_byte)


def test_the_standard_error_is_the_spread_of_draws() -> None:
    """Against drawing the passages again and again."""
    generator = np.random.default_rng(0)

    def draw() -> BpbIncrease:
        sizes = generator.integers(60, 240, size=200)
        clean = sizes * generator.normal(2.0, 0.4, size=200)
        return typo_robustness._bpb_increase(clean + sizes * generator.normal(0.3, 0.5, size=200), clean, sizes)

    drawn = [draw() for _ in range(400)]
    assert np.mean([row.increase for row in drawn]) == pytest.approx(0.3, abs=0.01)
    spread = np.std([row.increase for row in drawn])
    assert np.mean([row.standard_error for row in drawn]) == pytest.approx(spread, rel=0.1)


def make_store(folder: Path, tokenizer: Tokenizer, documents: list[list[int]]) -> TokenStore:
    writer = StoreWriter(folder, shard_tokens=10_000, conversations=False)
    for number, ids in enumerate(documents):
        tokens = np.array([*ids, tokenizer.end_of_text], dtype=np.uint16)
        writer.add(number, tokens, np.ones(len(tokens), bool), len(ids))
    writer.finish()
    return TokenStore(folder)


def test_passages_alternate_between_stores(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talk = [tokenizer.turn_start, *tokenizer.encode("user\n" + TEXT), tokenizer.turn_end]
    books = make_store(tmp_path / "books", tokenizer, [tokenizer.encode(f"Book {n}. {TEXT * 3}") for n in range(20)])
    posts = make_store(
        tmp_path / "posts", tokenizer, [talk, *(tokenizer.encode(TEXT.upper() * 3 + f"{n}.") for n in range(20))]
    )
    sampled = sample_passages([books, posts], tokenizer, 12, seed=0)
    assert sampled == sample_passages([books, posts], tokenizer, 12, seed=0)
    assert len(sampled) == 12
    assert sum(passage.continuation.isupper() for passage in sampled) == 6
    for passage in sampled:
        whole = passage.beginning + passage.continuation
        assert passage.continuation[0].isspace()
        assert 0.3 < len(passage.beginning) / len(whole) <= 0.5
        assert re.sub(r"book \d+\. |\d+\.", "", whole.lower()).strip() in TEXT.lower() * 4


def test_requests_are_about_topics_and_hold_instructions() -> None:
    for num in (1, 8, 60):
        tasks = constrained_requests(num, seed=0)
        assert len(tasks) == num
        assert all(task.topic is not None and task.checks for task in tasks)


def test_words_that_checks_look_for_stay_correct() -> None:
    for index, task in enumerate(constrained_requests(120, seed=1)):
        asked, typed = (
            " ".join(version.messages[-1]["content"].lower().split())
            for version in (task, mistyped_task(task, 0.3, Random(index)))
        )
        needed = [task.topic, *(value for check in task.checks for value in asdict(check).values())]
        for value in needed:
            for part in value if isinstance(value, tuple) else [value]:
                for word in re.findall(r"[a-z]+|\d+", str(part).lower()):
                    pattern = rf"(?<![a-z0-9]){word}(?![a-z0-9])"
                    assert len(re.findall(pattern, typed)) >= len(re.findall(pattern, asked)), (word, asked, typed)


def test_other_words_get_typos_and_checks_stay() -> None:
    request = "Please describe copper lanterns. Use the word river at least two times."
    task = Task([user_message(request)], "copper lanterns",
                (Frequency("river", 2), Keywords(("river",))))  # fmt: skip
    typed = [mistyped_task(task, 0.2, Random(seed)) for seed in range(20)]
    assert all(variant.checks == task.checks and variant.topic == task.topic for variant in typed)
    assert len({variant.messages[0]["content"] for variant in typed}) == 20
    assert mistyped_task(task, 0.0, Random(0)) == task


class ConstantChatModel:
    """A chat model with one answer to everything."""

    def answer(self, conversations: Sequence[Sequence[Message]], _max_new_tokens: int) -> list[Answer]:
        return [Answer("No, it is a river.")] * len(conversations)

    def bits_per_byte(self, _texts: Sequence[str]) -> float:
        return 0.0


def test_a_constant_answer_scores_the_same_at_all_rates() -> None:
    shares = typo_robustness.accuracies_with_typos(ConstantChatModel(), constrained_requests(20, seed=0), 4, seed=0)
    assert list(shares) == list(RATES)
    assert len({tuple(share.values()) for share in shares.values()}) == 1


def test_measurements_of_size_zero_are_left_out(model: KeyLM, tokenizer: Tokenizer) -> None:
    def measure(passages: list[Passage], tasks: list[Task]) -> dict[str, Any]:
        return typo_robustness.measure_typo_robustness(
            {"sft": model},
            lambda _: ConstantChatModel(),
            tokenizer,
            passages,
            tasks,
            max_new_tokens=2,
            length=64,
            seed=0,
        )

    assert set(measure([], constrained_requests(2, seed=0))["sft"]["10%"]) == {
        "instruction_accuracy",
        "topic_mentioned",
    }
    measured = measure(CHOSEN, [])
    assert set(measured["sft"]["10%"]) == {"bits_per_byte", "increase", "standard_error"}
    assert (measured["passages"], measured["prompts"], measured["instructions"]) == (9, 0, 0)
    assert list(measured["sft"]) == ["0%", "2%", "5%", "10%"]
