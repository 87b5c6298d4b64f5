"""Reinforcement learning: group relative policy optimisation (Shao et al. 2024, "DeepSeekMath"), by trl.

The model answers each prompt several times. An answer that is better than the mean of its group becomes likelier, a
worse one less likely. What is better, programs say: the checks of the request's instructions, and whether the answer is
about the topic. trl learns; the answers are written by llama.cpp, which is several times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from keylm.common.documents import Message
from keylm.inference.answers import Answer, longest_copy, loops
from keylm.inference.generator import generator_of_weights
from keylm.instructions.task import Example
from keylm.posttrain.examples import sample_examples
from keylm.posttrain.trl_trainer import Policy, run_trl, trl_arguments
from keylm.recipe.grpo import GrpoConfig
from keylm.run import Run
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer


def run_grpo(run: Run) -> dict[str, Any]:
    """Train the weights of the training before on answers of their own; leaves what other trainings leave.

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
        UserError: trl is not installed, or there are several ranks.
        KeyLMError: the loss is not a number.
    """
    settings = run.recipe.grpo
    assert settings is not None
    givers = [source for source in run.recipe.sft.sources if source.makes_prompts]
    num_prompts = settings.steps * settings.batch_prompts

    def trainer(policy: Policy) -> GRPOTrainer:
        """trl's, on prompts whose examples judge the answers."""
        from datasets import Dataset
        from trl import GRPOTrainer

        asked = sample_examples(run, "grpo.steps", num_prompts, givers, lambda example, _: example)
        rows = [{"prompt": example.task.messages, "number": number} for number, example in enumerate(asked)]
        return GRPOTrainer(
            model=policy.model,
            args=_config(run, settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            reward_funcs=_judge(asked, policy.tokenizer.eos_token_id),
            rollout_func=_write(run, settings),
        )

    return {"answers": num_prompts * settings.num_generations, **run_trl(run, "grpo", trainer, _measures)}


def reward(example: Example, answer: Answer) -> float:
    """Between 0 and 1: the share of the instructions that the answer follows, if it is an answer.

    It counts for nothing where it does not end, loops, or does not name the topic. It counts for less where it copies
    a longer run of the request than the example's own answer does, or has fewer than half as many words: both are
    cheap ways to follow.
    """
    task, text, num_words = example.task, answer.text, len(answer.text.split())
    if not answer.ended or loops(text) or not task.names_topic(text):
        return 0.0
    own, copied = (longest_copy(said.lower(), task.messages[-1]["content"].lower()) for said in (example.answer, text))
    length = min(1.0, 2 * num_words / len(example.answer.split()))
    return fmean(task.followed(text)) * length * (1 - max(0, copied - own) / num_words)


def _judge(asked: Sequence[Example], end: int) -> Callable[..., list[float]]:
    """What trl calls for the rewards of a batch; `number` is the column of that name."""

    def rewards(
        completions: list[list[Message]], completion_ids: list[list[int]], number: list[int], **_: Any
    ) -> list[float]:
        rows = zip(number, completions, completion_ids, strict=True)
        return [reward(asked[place], Answer(said[0]["content"], ended=ids[-1] == end)) for place, said, ids in rows]

    return rewards


def _write(run: Run, settings: GrpoConfig) -> Callable[[list[list[Message]], GRPOTrainer], dict[str, Any]]:
    """What trl calls for answers to a batch of prompts, each of which stands there as often as it is to be answered."""
    tokenizer = Tokenizer.load(run.stage("tokenizer"))

    def answers(prompts: list[list[Message]], trainer: GRPOTrainer) -> dict[str, Any]:
        ids = [encode_messages(tokenizer, prompt, add_generation_prompt=True)[0] for prompt in prompts]
        writer = generator_of_weights(run, trainer.model.state_dict())
        seed = run.recipe.seed + (trainer.state.global_step << 32)
        written = writer.sample(ids, settings.max_new_tokens, settings.temperature, seed)
        said = [[*answer.tokens, *([tokenizer.turn_end] if answer.ended else [])] for answer in written]
        return {"prompt_ids": ids, "completion_ids": said, "logprobs": None}

    return answers


def _measures(logs: dict[str, float]) -> dict[str, float]:
    """The mean reward, the share of answers that run to the limit, their tokens, and nats of entropy per token."""
    return {
        "reward": logs["reward"],
        "unfinished": logs["completions/clipped_ratio"],
        "answer_tokens": logs["completions/mean_length"],
        "entropy": logs["entropy"],
    }


def _config(run: Run, settings: GrpoConfig) -> GRPOConfig:
    from trl import GRPOConfig

    parts = settings.batch_answers // settings.micro_batch_answers
    return GRPOConfig(
        **trl_arguments(run, "grpo"),
        per_device_train_batch_size=settings.micro_batch_answers,
        gradient_accumulation_steps=parts,
        steps_per_generation=parts,
        max_steps=settings.steps,
        num_generations=settings.num_generations,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        shuffle_dataset=False,
    )
