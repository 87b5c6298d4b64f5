"""What a model makes of held-out documents, at the sampling settings of the release, beside what these say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

from keylm.common.documents import Message
from keylm.data.prepare.held_out import HeldOutPrompt, held_out_beginnings, held_out_conversations
from keylm.inference.answers import Answer
from keylm.inference.generator import KeyLMGenerator
from keylm.recipe.export import ExportConfig
from keylm.run import Run
from keylm.tokenizer.messages import decode_messages

SEED = 0
"""Of all samples: the same random numbers at every step, so that what differs is the model."""


class Sample(TypedDict):
    """A held-out prompt, what the model wrote, and what the document says."""

    source: str
    messages: list[Message]
    """The conversation before the answer; empty if the prompt is plain text."""
    prompt: str
    """The plain text before; empty if the prompt is a conversation."""
    answer: str
    ended: bool
    """Whether the model ended the answer itself; False if the token limit cut it off."""
    reference: str
    """What the document says in its place."""


def sample_held_out(
    run: Run, generator: KeyLMGenerator, stage: str, num: int, max_new_tokens: int, seed: int = SEED
) -> list[Sample]:
    """Let the weights of a stage continue held-out texts, or from SFT on answer held-out conversations.

    Args:
        run: The run, whose recipe has the sampling settings.
        generator: The weights.
        stage: The training stage that they come from.
        num: Number of prompts.
        max_new_tokens: Token limit of an answer.
        seed: Seed of the samples.

    Returns:
        One sample per prompt; none if the run has no held-out documents, as one that was imported.
    """
    prompts = held_out_prompts(run, stage, num, max_new_tokens)
    answers = released_answers(generator, run.recipe.export, [row.prompt for row in prompts], max_new_tokens, seed)
    return [_sample(generator, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def held_out_prompts(run: Run, stage: str, num: int, max_new_tokens: int) -> list[HeldOutPrompt]:
    """The prompts that the weights of a stage are tried on, with room for an answer in the context."""
    if stage == "pretrain":
        return held_out_beginnings(run, num, max_new_tokens)
    return held_out_conversations(run, num, run.recipe.model.max_position_embeddings // 2)


def released_answers(
    generator: KeyLMGenerator, export: ExportConfig, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int
) -> list[Answer]:
    """Continue prompts of token ids at the temperature and the repetition penalty of the release."""
    generator = replace(generator, repetition_penalty=export.repetition_penalty)
    if export.temperature == 0:
        return generator.greedy(prompts, max_new_tokens)
    return generator.sample(prompts, max_new_tokens, export.temperature, seed)


def _sample(generator: KeyLMGenerator, prompt: HeldOutPrompt, answer: Answer) -> Sample:
    tokenizer = generator.tokenizer
    messages = decode_messages(tokenizer, prompt.prompt)
    return {
        "source": prompt.source,
        "messages": messages,
        "prompt": "" if messages else tokenizer.decode(prompt.prompt),
        "answer": answer.text,
        "ended": answer.ended,
        "reference": tokenizer.decode(prompt.reference),
    }
