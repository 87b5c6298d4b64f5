"""GRPO: the reward by hand, trl's gradient against our own model's, learning, and resuming."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from keylm.stages import completed_training_stages

pytest.importorskip("trl")

from keylm.common.errors import UserError
from keylm.inference.answers import Answer
from keylm.inference.generator import KeyLMGenerator
from keylm.instructions.constraints.length import MinWords
from keylm.instructions.task import Example, Task, user_message
from keylm.model.transformer import load_model
from keylm.posttrain import grpo
from keylm.posttrain.trl_trainer import TrainingCallback
from keylm.recipe import load_recipe
from keylm.run import Run, open_run
from keylm.stages import run_until
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train import signals
from keylm.train.metrics import read_metrics

SETTINGS = [
    "grpo.steps=3",
    "grpo.batch_prompts=2",
    "grpo.num_generations=4",
    "grpo.micro_batch_answers=4",
    "grpo.max_new_tokens=24",
    "grpo.learning_rate=3e-3",
    "sft.sequence_length=128",
    "model.max_position_embeddings=256",
]


def example(answer: str = "Copper lanterns are warm lights of old streets.") -> Example:
    request = "Tell me about copper lanterns in at least five words please."
    return Example(Task([user_message(request)], "copper lanterns", (MinWords(5),)), answer)


def test_answer_that_follows_has_full_reward() -> None:
    assert grpo.reward(example(), Answer("People hang copper lanterns by the door.")) == 1


def test_unusable_answers_have_no_reward() -> None:
    good = "People hang copper lanterns by the door."
    assert grpo.reward(example(), Answer(good, ended=False)) == 0
    assert grpo.reward(example(), Answer("People hang bright lanterns by the door.")) == 0
    assert grpo.reward(example(), Answer("Copper lanterns " * 5)) == 0
    assert grpo.reward(example(), Answer("Copper lanterns shine.")) == 0


def test_echo_and_brevity_cost() -> None:
    """Of the echo's eight words all are one run of the request, where the example's own answer has a run of two."""
    echo = "about copper lanterns in at least five words"
    assert grpo.reward(example(), Answer(echo)) == pytest.approx(2 / 8)
    long = example("Copper lanterns " + "are lights of old streets and " * 3)
    assert grpo.reward(long, Answer("People hang copper lanterns up")) == pytest.approx(2 * 5 / 20)


class SampledAnswers:
    """Records the prompts and answers of every step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[list[list[int]]] = []
        self.answers: list[list[Answer]] = []
        draw = KeyLMGenerator.sample

        def sample(writer: KeyLMGenerator, prompts: list[list[int]], *how: float) -> list[Answer]:
            self.prompts.append(prompts)
            self.answers.append(draw(writer, prompts, *how))
            return self.answers[-1]

        monkeypatch.setattr(KeyLMGenerator, "sample", sample)


def short(_: Example, answer: Answer) -> float:
    """A reward that even a model that knows nothing can earn."""
    return 1 / (1 + len(answer.text))


def grad_norm(run: Run, prompts: Sequence[list[int]], answers: Sequence[Answer], group: int) -> float:
    """Of GRPO's first step by our own model: advantages times the gradient of the log-likelihood, over all tokens."""
    network = load_model(run.recipe.model, run.weights("sft")).train()
    end = Tokenizer.load(run.stage("tokenizer")).turn_end
    rewards = torch.tensor([short(example(), answer) for answer in answers]).view(-1, group)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    said = [[*answer.tokens, *([end] if answer.ended else [])] for answer in answers]
    num_tokens = sum(map(len, said))
    for prompt, ids, advantage in zip(prompts, said, advantages.flatten().tolist(), strict=True):
        targets = torch.tensor([[-100] * (len(prompt) - 1) + ids])
        nll = network.loss(torch.tensor([[*prompt, *ids][:-1]]), targets)
        (advantage * nll / num_tokens).backward()
    return torch.nn.utils.get_total_norm([part.grad for part in network.parameters()]).item()


def test_first_gradient_equals_our_own_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = SampledAnswers(monkeypatch)
    monkeypatch.setattr(grpo, "reward", short)
    run_until(run, "grpo")
    rows = read_metrics(run.stage("grpo") / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    prompts, answers = sampled.prompts[0], sampled.answers[0]
    assert len(answers) == 8
    assert prompts[0] == prompts[3] != prompts[4]
    assert len({answer.text for answer in answers[:4]}) > 1
    assert rows[0]["grad_norm"] == pytest.approx(grad_norm(run, prompts, answers, 4), rel=1e-3)
    assert rows[0]["reward"] == pytest.approx(sum(short(example(), answer) for answer in answers) / 8, abs=1e-4)
    read_tokens = sum(map(len, prompts)) + sum(len(answer.tokens) + answer.ended for answer in answers)
    assert rows[0]["tokens"] == read_tokens
    assert completed_training_stages(run) == ["pretrain", "sft", "grpo"]
    assert run.metadata("grpo")["num_answers"] == 24


def test_rewarded_answers_become_more_likely(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capital letters: hardly any at first, and then many."""
    monkeypatch.setattr(grpo, "reward", lambda _, answer: sum(map(str.isupper, answer.text)) / max(1, len(answer.text)))
    longer = open_run(run.folder, ["grpo.steps=16", "grpo.batch_prompts=8", "grpo.learning_rate=2e-2"])
    run_until(longer, "grpo")
    rewards = [row["reward"] for row in read_metrics(run.stage("grpo") / "metrics.jsonl")]
    assert sum(rewards[-3:]) > 2 * sum(rewards[:3])


def test_stopped_stage_resumes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the step that it stopped at, with the prompts that were still to come."""
    sampled = SampledAnswers(monkeypatch)
    ends = TrainingCallback.on_step_end

    def stop_after_two(
        callback: TrainingCallback, args: object, state: object, control: object, **rest: object
    ) -> None:
        if state.global_step == 2:
            callback.stop.ask(15, None)
        ends(callback, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingCallback, "on_step_end", stop_after_two)
        with pytest.raises(signals.TrainingStoppedError, match="stopped after step 2, saved"):
            run_until(run, "grpo")
    run_until(run, "grpo")
    rows = read_metrics(run.stage("grpo") / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert len({str(prompts) for prompts in sampled.prompts}) == len(sampled.prompts) == 3
    totals = [
        sum(map(len, prompts)) + sum(len(answer.tokens) + answer.ended for answer in answers)
        for prompts, answers in zip(sampled.prompts, sampled.answers, strict=True)
    ]
    assert [row["tokens"] for row in rows] == [sum(totals[: step + 1]) for step in range(3)]


def test_prompts_need_generated_instructions(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{name: a, grpo: {}, sft: {sources: [{name: talk, type: files, path: talk.jsonl}]}}")
    with pytest.raises(UserError, match=r"grpo needs a source of type instructions or constrained-chat"):
        load_recipe(path)
    path.write_text("{name: a, grpo: {micro_batch_answers: 5}}")
    with pytest.raises(UserError, match="must be a multiple of micro_batch_answers"):
        load_recipe(path)
