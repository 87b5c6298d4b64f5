"""The stage `grpo`: group relative policy optimization (Shao et al. 2024, "DeepSeekMath"), by trl.

The model answers each prompt several times. Answers with a reward above their group's mean become more likely, the
others less likely. Rewards are rules: the checks of the request's constraints, and whether the answer is about the
topic. trl computes the updates; our own generator samples the answers, several times as fast as transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
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
    from trl import GRPOTrainer


def run_grpo(run: Run) -> dict[str, Any]:
    """Train the weights of the previous training stage on answers that they sample themselves.

    Returns:
        The stage's metadata.

    Raises:
        TrainingStoppedError: on Ctrl-C or SIGTERM, with everything saved.
        UserError: trl is not installed, or there are several ranks.
        KeyLMError: the loss is not finite.
    """
    config = run.recipe.grpo
    assert config is not None
    sources = [source for source in run.recipe.sft.sources if source.makes_examples]
    num_prompts = config.steps * config.batch_prompts

    def make_trainer(policy: Policy) -> GRPOTrainer:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        examples = sample_examples(run, "grpo.steps", num_prompts, sources, lambda example, _: example)
        # They come source by source, and no step should see one alone.
        Random(run.recipe.seed).shuffle(examples)
        rows = [{"prompt": example.task.messages, "number": number} for number, example in enumerate(examples)]
        num_micro_batches = config.batch_answers // config.micro_batch_answers
        arguments = GRPOConfig(
            **trl_arguments(run, "grpo", config),
            per_device_train_batch_size=config.micro_batch_answers,
            gradient_accumulation_steps=num_micro_batches,
            # New answers for every step: older ones would come from other weights than those that are updated.
            steps_per_generation=num_micro_batches,
            max_steps=config.steps,
            num_generations=config.num_generations,
            max_completion_length=config.max_new_tokens,
            temperature=config.temperature,
            shuffle_dataset=False,
        )
        return GRPOTrainer(
            model=policy.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            reward_funcs=_make_reward_function(examples, policy.tokenizer.eos_token_id),
            rollout_func=_make_rollout_function(run, config),
        )

    return {
        "num_answers": num_prompts * config.num_generations,
        **run_trl(run, "grpo", config, make_trainer, _columns),
    }


def reward(example: Example, answer: Answer) -> float:
    """Reward of an answer, between 0 and 1: the fraction of the request's constraints that it satisfies.

    Cheap ways to satisfy constraints are not rewarded. The reward is 0 if the answer does not end, loops, or does not
    name the topic, if the task has one. It is reduced if the answer copies a longer run of the request than the
    example's own answer does, or has fewer than half as many words as that.
    """
    task, text, num_words = example.task, answer.text, len(answer.text.split())
    names_topic = task.topic is None or task.names_topic(text)
    if not answer.ended or loops(text) or not names_topic:
        return 0.0
    request = task.messages[-1]["content"].lower()
    copied_by_example, copied = (longest_copy(words.lower(), request) for words in (example.answer, text))
    length_factor = min(1.0, 2 * num_words / len(example.answer.split()))
    return fmean(task.followed(text)) * length_factor * (1 - max(0, copied - copied_by_example) / num_words)


def _make_reward_function(examples: Sequence[Example], eos_token_id: int) -> Callable[..., list[float]]:
    """The function that trl calls for the rewards of a batch; `number` is the data set's column of that name."""

    def rewards(
        completions: list[list[Message]], completion_ids: list[list[int]], number: list[int], **_: Any
    ) -> list[float]:
        return [
            reward(examples[index], Answer(messages[0]["content"], ended=ids[-1] == eos_token_id))
            for index, messages, ids in zip(number, completions, completion_ids, strict=True)
        ]

    return rewards


def _make_rollout_function(
    run: Run, config: GrpoConfig
) -> Callable[[list[list[Message]], GRPOTrainer], dict[str, Any]]:
    """The function that trl calls to sample answers; each prompt comes as often as it is to be answered."""
    tokenizer = Tokenizer.load(run.stage("tokenizer"))

    def rollout(prompts: list[list[Message]], trainer: GRPOTrainer) -> dict[str, Any]:
        prompt_ids = [encode_messages(tokenizer, prompt, add_generation_prompt=True)[0] for prompt in prompts]
        generator = generator_of_weights(run, trainer.model.state_dict())
        # A function of the step, so that steps sample differently, and a resumed run as if it had not stopped.
        seed = run.recipe.seed + (trainer.state.global_step << 32)
        answers = generator.sample(prompt_ids, config.max_new_tokens, config.temperature, seed)
        # The generator leaves out the token that ends an answer, and ending is to be learned, too.
        completion_ids = [[*answer.tokens, *([tokenizer.turn_end] if answer.ended else [])] for answer in answers]
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    return rollout


def _columns(logs: dict[str, float]) -> dict[str, float]:
    """The mean reward, the fraction of answers cut off, the mean tokens per answer, and nats of entropy per token."""
    return {
        "reward": logs["reward"],
        "unfinished": logs["completions/clipped_ratio"],
        "answer_tokens": logs["completions/mean_length"],
        "entropy": logs["entropy"],
    }
