"""What is shown while a model is trained: the line, samples, validation of answers, and what rises."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.prepare.outputs import open_store
from keylm.inference.generator import generator_of_weights
from keylm.model.transformer import load_model
from keylm.run import Run, open_run
from keylm.stages import run_until
from keylm.tokenizer.messages import decode_messages
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train import stages
from keylm.train.metrics import read_metrics
from keylm.train.progress import progress_line, sample_lines, time_left
from keylm.train.validation import rising, validation_on_answers


def rows_with(run: Run, stage: str, key: str) -> list[dict]:
    return [row for row in read_metrics(run.stage(stage) / "metrics.jsonl") if key in row]


def test_the_line_fits_80_columns_with_the_time_left_first() -> None:
    longest = progress_line("pretrain", 134_333, 134_333, 99 * 86_400, 12.345, 123_456, 0.54)
    assert longest.startswith("  99 d 00:00 left  pretrain 134,333/134,333")
    assert cell_len(longest) <= 80
    assert progress_line("sft", 3, 489, 3725, 0.5, 6220, 0.24) == (
        "  1:02:05 left  sft 3/489  loss 0.500  6,220 tok/s  24% MFU"
    )


@pytest.mark.parametrize(("seconds", "words"), [(5, "0:00:05"), (3_725.4, "1:02:05"), (90_000, "1 d 01:00")])
def test_time_left(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


def test_every_quarter_has_a_sample(trained: Run) -> None:
    samples = rows_with(trained, "pretrain", "sample")
    assert [row["step"] for row in samples] == [row["step"] for row in rows_with(trained, "pretrain", "validation")]
    assert {row["sample"]["source"] for row in samples} == {"prose"}
    assert len({row["sample"]["prompt"] for row in samples}) == 1
    answered = rows_with(trained, "sft", "sample")
    assert all(row["sample"]["messages"][-1]["role"] == "user" and row["sample"]["reference"] for row in answered)
    assert "asked: " in sample_lines(7, answered[0]["sample"]).plain


def test_sampling_changes_nothing(trained: Run, tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_sample", lambda *_: None)
    run_until(tiny_run, "pretrain")
    assert tiny_run.weights("pretrain").read_bytes() == trained.weights("pretrain").read_bytes()


def test_sampling_draws_none_of_training_s_random_numbers(trained: Run) -> None:
    weights = dict(load_model(trained.recipe.model, trained.weights("pretrain")).state_dict())
    before = torch.get_rng_state()
    generator = replace(generator_of_weights(trained, weights), shows_progress=False)
    generator.sample([[1, 2, 3]], 5, temperature=1.0, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_answers_are_scored_per_byte_of_the_answers(trained: Run) -> None:
    class Uniform(torch.nn.Module):
        """Every token has the same probability, so the score follows from counts alone."""

        def forward(self, _: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return (targets != IGNORE_INDEX).sum() * math.log(400)

    tokenizer = Tokenizer.load(trained.stage("tokenizer"))
    store = open_store(trained, "sft", "talk", "validation")
    validation = validation_on_answers({"talk": store}, tokenizer, 10**9, trained.recipe.sft.sequence_length)
    text, num_tokens, start = "", 0, 0
    for end in store.document_ends.tolist():
        messages = decode_messages(tokenizer, store.tokens(start, end).tolist())
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        text += "".join(answers)
        # Each answer is closed by a token, which is predicted too.
        num_tokens += sum(len(tokenizer.encode(answer)) + 1 for answer in answers)
        start = end
    [score] = validation.bits_per_byte(Uniform()).values()
    assert score == pytest.approx(math.log2(400) * num_tokens / len(text.encode()), rel=1e-3)


def test_sft_validates_answers_beside_text(trained: Run) -> None:
    validated = rows_with(trained, "sft", "answers")
    assert [row["step"] for row in validated] == [3, 6, 9, 10]
    assert set(validated[0]["answers"]) == {"talk"}
    assert [row["step"] for row in rows_with(trained, "sft", "validation")] == [3, 6, 9, 10]
    assert not rows_with(trained, "pretrain", "answers")


def test_what_rises_is_found() -> None:
    earlier = [
        {"step": 1, "answers": {"a": 0.5, "b": 0.4}},
        {"step": 2, "answers": {"a": 0.45, "b": 0.399}},
        {"step": 3},
    ]
    assert rising({"a": 0.47, "b": 0.4, "new": 1.0}, earlier, "answers") == {"a": (2, 0.45)}
    assert rising({"a": 0.44}, earlier, "answers") == {}


def test_a_rise_is_said(tiny_run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # At such a rate the model forgets what it knew, on the text it is trained on too.
    run = open_run(tiny_run.folder, ["train.optimizer.learning_rate_scale=40", "train.warmup_fraction=0"])
    run_until(run, "pretrain")
    scores = [row["validation"]["prose"] for row in rows_with(run, "pretrain", "validation")]
    said = capsys.readouterr().err
    assert ("rises, from" in said) == any(later > 1.01 * min(scores[:i]) for i, later in enumerate(scores) if i)
