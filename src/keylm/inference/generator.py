"""Batch generation with our own decoder, in float32: on two cores several times as fast as llama.cpp.

Continuous batching: finished answers make room for the next prompts. Greedy answers equal those of transformers and of
llama.cpp except where two tokens tie up to rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from keylm.common.console import progress
from keylm.inference.answers import Answer
from keylm.inference.weights import load_weights
from keylm.model.kernels.ops import linear
from keylm.model.kv_cache import KVCache
from keylm.model.transformer import KeyLM
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

NUM_SLOTS = 128
"""Answers generated at the same time, at most."""
_CACHE_BYTES = 2**30
"""Memory for keys and values. Long answers of a large model get fewer slots."""
_PREFILL_TOKENS = 4096
"""Tokens of prompts per forward pass, padding included; a longer prompt has a pass of its own."""


class Generator(Protocol):
    """A model that continues prompts of token ids."""

    def greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Answer]:
        """Continue each prompt with the most likely token at every step.

        Args:
            prompts: Token ids of each prompt.
            max_new_tokens: Token limit of an answer; a full context ends it earlier.
            stop: Strings that end an answer, besides the model's own end tokens.
        """


@dataclass
class _Sequence:
    """An answer that is being generated."""

    index: int
    """Of its prompt."""
    limit: int
    """Tokens that it may have."""
    prompt: Sequence[int]
    unread: Sequence[int]
    """Tokens whose keys and values are not in the cache: the prompt at first, then the latest token."""
    num_cached: int = 0
    tokens: list[int] = field(default_factory=list)

    def append(self, token: int) -> None:
        """Add a token, after `unread` has been read."""
        self.num_cached += len(self.unread)
        self.unread = [token]
        self.tokens.append(token)


@dataclass(frozen=True)
class KeyLMGenerator:
    """Continues prompts with our own decoder (`Generator`). Any control token ends an answer."""

    model: KeyLM
    """In float32, on any device."""
    tokenizer: Tokenizer
    repetition_penalty: float = 1.0
    """Lowers the logits of tokens that occur in the prompt or the answer; 1 does not."""
    shows_progress: bool = True
    """Whether a bar counts the answers."""

    def greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Answer]:
        """Continue each prompt with the most likely token at every step (`Generator.greedy`)."""

        def choose(logits: Tensor, batch: Sequence[_Sequence]) -> Tensor:
            return self._penalized(logits, batch).argmax(dim=-1)

        return self._generate(prompts, max_new_tokens, choose, stop)

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Continue each prompt with tokens sampled from the full distribution.

        Args:
            prompts: Token ids of each prompt.
            max_new_tokens: Token limit of an answer; a full context ends it earlier.
            temperature: Divides the logits.
            seed: Seed of the samples.
        """
        # Drawn beforehand, so that an answer does not depend on which others are generated beside it.
        rng = torch.Generator().manual_seed(seed)
        uniform = torch.rand(len(prompts), max_new_tokens, dtype=torch.float64, generator=rng)

        def choose(logits: Tensor, batch: Sequence[_Sequence]) -> Tensor:
            draws = torch.stack([uniform[sequence.index, len(sequence.tokens)] for sequence in batch]).to(logits.device)
            logits = self._penalized(logits, batch)
            cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
            # A draw is under 1, but the sum of all probabilities may be lower by its rounding.
            return torch.searchsorted(cumulative, draws[:, None], right=True)[:, 0].clamp(max=logits.shape[1] - 1)

        return self._generate(prompts, max_new_tokens, choose)

    @torch.inference_mode()
    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        choose: Callable[[Tensor, Sequence[_Sequence]], Tensor],
        stop: Sequence[str] = (),
    ) -> list[Answer]:
        """Generate the answers, whose tokens `choose` takes from the logits (batch, V) of a batch of sequences."""
        answers = [Answer("", ended=False) for _ in prompts]
        waiting = self._sequences(prompts, max_new_tokens)
        capacity = max((len(sequence.unread) + sequence.limit for sequence in waiting), default=0)
        num_slots = self._num_slots(capacity)
        cache = KVCache(self.model.config, num_slots, capacity, self.model.device)
        # A sequence's place in this list is its slot in the cache.
        running: list[_Sequence] = []
        with progress("answers", len(waiting), "answers") if self.shows_progress else nullcontext() as bar:
            while waiting or running:
                num_free = num_slots - len(running)
                # Several at a time: a pass for every single prompt would hold up the others too often.
                if waiting and 4 * num_free >= num_slots:
                    first = len(running)
                    running += _next_batch(waiting, num_free)
                else:
                    first = 0
                batch = running[first:]
                tokens = choose(self._logits(cache, first, batch), batch)
                for sequence, token in zip(batch, tokens.tolist(), strict=True):
                    sequence.append(token)
                for slot in reversed(range(first, len(running))):
                    answer = self._finished_answer(running[slot], stop)
                    if answer is None:
                        continue
                    answers[running[slot].index] = answer
                    # The last sequence takes the place, so that slots in use stay next to each other.
                    cache.move(len(running) - 1, slot, running[-1].num_cached)
                    running[slot] = running[-1]
                    running.pop()
                    if bar:
                        bar.advance()
        return answers

    def _penalized(self, logits: Tensor, batch: Sequence[_Sequence]) -> Tensor:
        return logits if self.repetition_penalty == 1 else _penalize(logits, batch, self.repetition_penalty)

    def _sequences(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> deque[_Sequence]:
        """A sequence for each prompt that leaves room for an answer, shortest prompt first."""
        context_length = self.model.config.max_position_embeddings
        sequences = [
            _Sequence(index, min(max_new_tokens, context_length - len(prompt)), prompt, unread=prompt)
            for index, prompt in enumerate(prompts)
        ]
        # Prompts of similar length are read together, with little padding.
        return deque(sorted((row for row in sequences if row.limit > 0), key=lambda row: len(row.unread)))

    def _num_slots(self, capacity: int) -> int:
        """Slots of `capacity` positions that the cache has room for."""
        config = self.model.config
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * capacity
        return min(NUM_SLOTS, max(1, _CACHE_BYTES // (4 * max(1, numbers))))

    def _logits(self, cache: KVCache, first_slot: int, batch: Sequence[_Sequence]) -> Tensor:
        """Read the unread tokens of sequences in the slots from `first_slot` on; logits (batch, V) of the next ones."""
        # Padding is read too. Its keys and values stand behind those of the sequence, until new ones replace them.
        tokens = torch.tensor(list(zip_longest(*(row.unread for row in batch), fillvalue=0))).T
        starts = torch.tensor([row.num_cached for row in batch])
        positions = starts[:, None] + torch.arange(tokens.shape[1])
        contexts = cache.contexts(first_slot, positions)
        device = self.model.device
        hidden = self.model(tokens.to(device), positions=positions.to(device), contexts=contexts)
        last = [len(row.unread) - 1 for row in batch]
        return linear(hidden[range(len(batch)), last], self.model.lm_head.weight)

    def _finished_answer(self, sequence: _Sequence, stop: Sequence[str]) -> Answer | None:
        """The answer, if its latest token finished it."""
        ended = sequence.tokens[-1] in (self.tokenizer.end_of_text, self.tokenizer.turn_start, self.tokenizer.turn_end)
        tokens = sequence.tokens[:-1] if ended else sequence.tokens
        is_full = len(tokens) == sequence.limit
        if not (ended or is_full or stop):
            return None
        text = self.tokenizer.decode(tokens)
        cuts = [text.index(string) for string in stop if string in text]
        if cuts:
            return Answer(text[: min(cuts)], tokens=tuple(tokens))
        return Answer(text, ended, tuple(tokens)) if ended or is_full else None


def generator_of_run(run: Run, stage: str) -> KeyLMGenerator:
    """Load the final weights of a training stage. Its greedy answers have the repetition penalty of `eval`."""
    model = load_weights(run, stage)
    return KeyLMGenerator(model, Tokenizer.load(run.stage("tokenizer")), run.recipe.eval.repetition_penalty)


def generator_of_weights(run: Run, weights: Mapping[str, Tensor]) -> KeyLMGenerator:
    """A generator with weights of the run's architecture; those that are float32 on the CPU are shared, not copied."""
    with torch.device("meta"):
        model = KeyLM(run.recipe.model)
    weights = {name: weight.detach().to("cpu", torch.float32) for name, weight in weights.items()}
    model.load_state_dict(weights, assign=True)
    return KeyLMGenerator(model.eval(), Tokenizer.load(run.stage("tokenizer")))


def _penalize(logits: Tensor, batch: Sequence[_Sequence], penalty: float) -> Tensor:
    """Divide the positive logits (batch, V) of tokens that occurred already, and multiply the negative ones.

    As in transformers (Keskar et al. 2019, "CTRL", arXiv 1909.05858).
    """
    histories = [[*row.prompt, *row.tokens] for row in batch]
    # Padded with a token of the same sequence, which is penalized once like any other.
    width = max(map(len, histories))
    rows = [history + history[:1] * (width - len(history)) for history in histories]
    seen = torch.tensor(rows, device=logits.device)
    scores = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(scores < 0, scores * penalty, scores / penalty))


def _next_batch(waiting: deque[_Sequence], room: int) -> list[_Sequence]:
    """Take up to `room` sequences, the shortest first, as many as one forward pass reads."""
    batch = [waiting.popleft()]
    while waiting and len(batch) < room and (len(batch) + 1) * len(waiting[0].unread) <= _PREFILL_TOKENS:
        batch.append(waiting.popleft())
    return batch
