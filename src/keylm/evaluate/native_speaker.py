"""Our own model as a speaker, with the weights before tuning as the plain language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keylm import chat
from keylm.chat import Message
from keylm.evaluate.answers import Answer
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.generate import generate
from keylm.model import KeyLM
from keylm.screen import progress
from keylm.tokenizer import Tokenizer


@dataclass(frozen=True)
class NativeSpeaker:
    """A model, its tokenizer, and the model that reads what it says."""

    model: KeyLM
    tokenizer: Tokenizer
    plain: KeyLM

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""
        prompts = [chat.encode(self.tokenizer, messages, add_generation_prompt=True)[0] for messages in conversations]
        stop = self.tokenizer.turn_end
        with progress("answers", len(prompts), "answers") as bar:
            rows = generate(self.model, prompts, max_new_tokens, stop, advance=bar.advance)
        return [Answer(self.tokenizer.decode(ids), ended=stop in ids) for ids in rows]

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts behind an end-of-text token."""
        rows = [([self.tokenizer.end_of_text], self.tokenizer.encode(text)) for text in texts if text]
        num_bytes = sum(len(text.encode()) for text in texts)
        bits = continuation_bits(self.plain, rows, self.plain.config.max_position_embeddings)
        return float(bits.sum()) / num_bytes if num_bytes else 0.0
