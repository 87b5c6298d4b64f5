"""A run's weights as a speaker: llama.cpp writes its answers, and the weights before tuning read them as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylm.common.documents import Message
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.inference.answers import Answer
from keylm.inference.generator import LlamaCppGenerator, generator_of_run
from keylm.model.transformer import KeyLM, load_model
from keylm.run import Run
from keylm.stages import completed_training_stages
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class RunChatModel:
    """What writes, the tokenizer, and the model that reads what was written."""

    writer: LlamaCppGenerator
    tokenizer: Tokenizer
    plain: KeyLM

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""
        prompts = [
            encode_messages(self.tokenizer, messages, add_generation_prompt=True)[0] for messages in conversations
        ]
        return self.writer.write(prompts, max_new_tokens)

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts as plain text; 0 of nothing."""
        return bits_per_byte(self.plain, self.tokenizer, texts)


def run_chat_model(run: Run, stage: str) -> RunChatModel:
    """The weights that a training left, read by those of the run's first."""
    plain = load_model(run.recipe.model, run.weights(completed_training_stages(run)[0]))
    return RunChatModel(generator_of_run(run, stage), Tokenizer.load(run.stage("tokenizer")), plain)


def bits_per_byte(model: KeyLM, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Bits per byte of the texts under a model, each behind an end-of-text token; 0 of nothing."""
    rows = [([tokenizer.end_of_text], tokenizer.encode(text)) for text in texts if text]
    num_bytes = sum(len(text.encode()) for text in texts)
    bits = continuation_bits(model, rows, model.config.max_position_embeddings)
    return float(bits.sum()) / num_bytes if num_bytes else 0.0
