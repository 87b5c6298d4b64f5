"""A run's weights as a speaker: llama.cpp writes its answers, and the weights before tuning read them as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylm import chat, llama_writer
from keylm import model as models
from keylm.answers import Answer
from keylm.chat import Message
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.llama_writer import LlamaWriter
from keylm.model import KeyLM
from keylm.run import Run
from keylm.tokenizer import Tokenizer


@dataclass(frozen=True)
class NativeSpeaker:
    """What writes, the tokenizer, and the model that reads what was written."""

    writer: LlamaWriter
    tokenizer: Tokenizer
    plain: KeyLM

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""
        prompts = [chat.encode(self.tokenizer, messages, add_generation_prompt=True)[0] for messages in conversations]
        return self.writer.write(prompts, max_new_tokens)

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts as plain text; 0 of nothing."""
        return bits_per_byte(self.plain, self.tokenizer, texts)


def of_run(run: Run, stage: str) -> NativeSpeaker:
    """The weights that a training left, read by those of the run's first."""
    plain = models.load(run.recipe.model, run.weights(run.trained[0]))
    return NativeSpeaker(llama_writer.of_run(run, stage), Tokenizer.load(run.stage("tokenizer")), plain)


def bits_per_byte(model: KeyLM, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Bits per byte of the texts under a model, each behind an end-of-text token; 0 of nothing."""
    rows = [([tokenizer.end_of_text], tokenizer.encode(text)) for text in texts if text]
    num_bytes = sum(len(text.encode()) for text in texts)
    bits = continuation_bits(model, rows, model.config.max_position_embeddings)
    return float(bits.sum()) / num_bytes if num_bytes else 0.0
