"""Log-likelihoods of answers: answers to one question share a row, so that the question is computed once.

A row is the trunk (the question and what all answers begin with) and, behind it, the rest of every answer without its
last token. The attention mask lets each answer see the trunk and itself, and positions go on from the trunk's end: each
answer is scored as if it stood there alone (as in the tree attention of SpecInfer, Miao et al. 2023). Rows are sorted
by length, so that there is little padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import torch
from torch import Tensor

from keylm.model.kernels.ops import linear
from keylm.model.transformer import KeyLM

BATCH_TOKENS = 1024
"""Tokens per forward pass, padding included; a longer row is a batch of its own."""

Request = tuple[Sequence[int], Sequence[int]]
"""Token ids of a question and of an answer, neither of them empty."""


@dataclass
class _Row:
    """A question, its answers, and the numbers of the requests that they are of."""

    question: tuple[int, ...]
    answers: list[Sequence[int]]
    numbers: list[int]

    @cached_property
    def common(self) -> int:
        """How many tokens all answers begin with, not counting their last."""
        columns = zip(*(answer[:-1] for answer in self.answers), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    @property
    def trunk(self) -> list[int]:
        """The question and what all answers begin with."""
        return [*self.question, *self.answers[0][: self.common]]

    @property
    def rests(self) -> list[Sequence[int]]:
        """What else is fed of each answer."""
        return [answer[self.common : -1] for answer in self.answers]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return len(self.question) + self.common + sum(map(len, self.rests))


@torch.no_grad()
def log_likelihoods(
    model: KeyLM,
    requests: Sequence[Request],
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda _: None,
) -> list[tuple[float, bool]]:
    """For each request, the answer's log-likelihood in nats, and whether it is what greedy decoding would say.

    Where the two are longer than the model's context, the question loses its beginning. Nothing depends on
    `batch_tokens` but for rounding. `advance` is told how many requests are done.

    Raises:
        ValueError: a question or an answer is empty, or an answer is longer than the context.
    """
    found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    for batch in _batches(_rows(requests, model.config.max_position_embeddings), batch_tokens):
        numbers = [number for row in batch for number in row.numbers]
        for number, result in zip(numbers, _score(model, batch), strict=True):
            found[number] = result
        advance(len(numbers))
    return found


def _rows(requests: Sequence[Request], context: int) -> list[_Row]:
    """The requests by question, the longest rows first."""
    rows: dict[tuple[int, ...], _Row] = {}
    for number, (question, answer) in enumerate(requests):
        if not question or not answer or len(answer) > context:
            raise ValueError(f"request {number} needs a question, and an answer of 1 to {context} tokens")
        kept = tuple(question[-(context + 1 - len(answer)) :])
        row = rows.setdefault(kept, _Row(kept, [], []))
        row.answers.append(answer)
        row.numbers.append(number)
    return sorted(rows.values(), key=lambda row: -row.length)


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows of about one length; the first of a batch is its longest."""
    batch: list[_Row] = []
    for row in rows:
        if batch and batch[0].length * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score(model: KeyLM, batch: Sequence[_Row]) -> list[tuple[float, bool]]:
    """The results of a batch's answers, in order."""
    length = batch[0].length
    tokens, positions = torch.zeros(2, len(batch), length, dtype=torch.long)
    owners = torch.full((len(batch), length), -1)
    places: list[Tensor] = []
    for index, row in enumerate(batch):
        first, forked = len(row.question) - 1, len(row.trunk)
        tokens[index, :forked] = torch.tensor(row.trunk)
        positions[index, :forked] = torch.arange(forked)
        owners[index, :forked] = 0
        end = forked
        for owner, rest in enumerate(row.rests, start=1):
            begin, end = end, end + len(rest)
            tokens[index, begin:end] = torch.tensor(rest, dtype=torch.long)
            positions[index, begin:end] = torch.arange(forked, forked + len(rest))
            owners[index, begin:end] = owner
            places.append(index * length + torch.tensor([*range(first, forked), *range(begin, end)]))
    hidden = model(tokens, positions=positions, mask=_mask(owners)).flatten(0, 1)
    answers = [torch.tensor(answer) for row in batch for answer in row.answers]
    # Answers share the places of their trunk: each is computed once, and looked up by all.
    once, rows = torch.unique(torch.cat(places), return_inverse=True)
    logits = linear(hidden[once], model.lm_head.weight).float()
    chosen, greatest = logits[rows, torch.cat(answers)], logits.amax(dim=-1)
    likeliest = chosen == greatest[rows]
    # In place, for memory of this size takes longer to come by than to fill.
    totals = logits.sub_(greatest[:, None]).exp_().sum(dim=-1).log_().add_(greatest)
    said = chosen - totals[rows]
    sizes = [len(answer) for answer in answers]
    return [
        (part.sum().item(), bool(hits.all()))
        for part, hits in zip(torch.split(said, sizes), torch.split(likeliest, sizes), strict=True)
    ]


def _mask(owners: Tensor) -> Tensor:
    """Boolean (B, 1, T, T): a token sees the trunk (owner 0) and its own answer, up to itself."""
    query, key = owners[:, None, :, None], owners[:, None, None, :]
    allowed: Tensor = ((key == 0) | (key == query)).tril()
    return allowed
