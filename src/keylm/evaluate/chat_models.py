"""Chat models under evaluation: the weights of a run, or of a model that transformers loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from keylm.common.console import progress
from keylm.common.documents import Message
from keylm.common.errors import UserError
from keylm.evaluate.bits_per_byte import plain_bits_per_byte
from keylm.inference.answers import Answer
from keylm.inference.generator import Generator, KeyLMGenerator, generator_of_run
from keylm.inference.weights import load_weights
from keylm.model.transformer import KeyLM
from keylm.run import Run
from keylm.stages import completed_training_stages
from keylm.tokenizer.messages import encode_messages

_BATCH_SIZE = 16


@dataclass(frozen=True)
class RunChatModel:
    """The weights of a training stage (`ChatModel`)."""

    generator: KeyLMGenerator
    """The weights under evaluation."""
    base_model: KeyLM
    """The pretrained weights, which score the answers as plain text."""

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """Generate the next turn of each conversation with greedy decoding."""
        prompts = [
            encode_messages(self.generator.tokenizer, messages, add_generation_prompt=True)[0]
            for messages in conversations
        ]
        return self.generator.greedy(prompts, max_new_tokens)

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts under the pretrained weights; 0.0 if all are empty."""
        return plain_bits_per_byte(self.base_model, self.generator.tokenizer, texts)


def run_chat_model(run: Run, stage: str) -> RunChatModel:
    """Load the final weights of a training stage."""
    base_model = load_weights(run, completed_training_stages(run)[0])
    return RunChatModel(generator_of_run(run, stage), base_model)


@dataclass(frozen=True)
class TransformersChatModel:
    """A model of transformers (`ChatModel`), which also scores its own answers as plain text.

    Raises:
        UserError: The tokenizer has no chat template.
    """

    model: Any
    tokenizer: Any
    generator: Generator | None = None
    """Generates the answers, if the model comes from a GGUF file."""

    def __post_init__(self) -> None:
        """Check the chat template, and pad on the left so that all prompts of a batch end together."""
        if not self.tokenizer.chat_template:
            raise UserError("the model has no chat template, so it cannot answer: name --tasks that compare answers")
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """Generate the next turn of each conversation with greedy decoding."""
        prompts = [
            self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
            for messages in conversations
        ]
        if self.generator:
            ids = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
            return self.generator.greedy(ids, max_new_tokens)
        # Prompts of similar length share a batch, so that there is little padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = dict.fromkeys(order, Answer(""))
        with progress("answers", len(order), "answers") as bar:
            for first in range(0, len(order), _BATCH_SIZE):
                batch = order[first : first + _BATCH_SIZE]
                generated = self._generate([prompts[index] for index in batch], max_new_tokens)
                answers |= dict(zip(batch, generated, strict=True))
                bar.advance(len(batch))
        return [answers[index] for index in range(len(prompts))]

    @torch.no_grad()
    def _generate(self, prompts: list[str], max_new_tokens: int) -> list[Answer]:
        # The chat template has written the special tokens already; a second begin-of-text token would change answers.
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        prompt_length = inputs["input_ids"].shape[1]
        output = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=min(max_new_tokens, self.model.config.max_position_embeddings - prompt_length),
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, prompt_length:]
        # One id or a list of them, depending on the model.
        end_tokens = torch.tensor(self.model.generation_config.eos_token_id)
        ended = torch.isin(output, end_tokens).any(dim=1).tolist()
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [Answer(text, has_ended) for text, has_ended in zip(texts, ended, strict=True)]

    @torch.no_grad()
    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts without their questions, each after the model's begin- or end-of-text token."""
        begin = self.tokenizer.bos_token_id
        first = self.tokenizer.eos_token_id if begin is None else begin
        nats = 0.0
        for text in filter(None, texts):
            ids = torch.tensor([[first, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]])
            log_probs = self.model(ids).logits[0, :-1].log_softmax(dim=-1)
            nats -= log_probs.gather(1, ids[0, 1:, None]).double().sum().item()
        num_bytes = sum(len(text.encode()) for text in texts)
        return nats / math.log(2) / num_bytes if num_bytes else 0.0
