"""Log-likelihoods of answers, with the question they share computed once.

The answers to one question form one row of the batch: the prefix (the question and the tokens with which all answers
begin), followed by the remainder of each answer. A tree attention mask, as in SpecInfer (Miao et al. 2023), lets each
answer see the prefix and itself, and its positions continue from the end of the prefix, so each is scored as if it were
alone. The last token of an answer is predicted but not fed. For the question `q r` with the answers `a b c` and `a d`:

    input       q   r   a     b
    position    0   1   2     3
    predicts        a   b, d  c

Rows are sorted by length, so that there is little padding.
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
"""Tokens per forward pass, padding included; a longer row is a batch of its own. Of 512 to 8,192, this was the fastest
(docs/eval.md)."""

Request = tuple[Sequence[int], Sequence[int]]
"""Token ids of a question and of an answer, neither of them empty."""


@dataclass
class _Row:
    """One question, its answers, and the indices of the requests they belong to."""

    question: tuple[int, ...]
    answers: list[Sequence[int]]
    request_indices: list[int]

    @cached_property
    def num_shared(self) -> int:
        """Number of tokens with which all answers begin, not counting their last."""
        columns = zip(*(answer[:-1] for answer in self.answers), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    @property
    def prefix(self) -> list[int]:
        """The question and the tokens with which all answers begin."""
        return [*self.question, *self.answers[0][: self.num_shared]]

    @property
    def remainders(self) -> list[Sequence[int]]:
        """The other input tokens of each answer; its last token is only predicted."""
        return [answer[self.num_shared : -1] for answer in self.answers]

    @property
    def length(self) -> int:
        """Input tokens of the row."""
        return len(self.question) + self.num_shared + sum(map(len, self.remainders))


@torch.no_grad()
def log_likelihoods(
    model: KeyLM,
    requests: Sequence[Request],
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], object] = lambda _: None,
) -> list[tuple[float, bool]]:
    """Log-likelihood of each answer after its question, and whether greedy decoding would produce it.

    Args:
        model: The model.
        requests: Questions and answers. If a pair exceeds the model's context, the question loses its first tokens.
        batch_tokens: Tokens per forward pass; changes nothing but rounding.
        advance: Called with the number of requests scored, after every batch.

    Returns:
        For each request, nats and a bool.

    Raises:
        ValueError: A question or an answer is empty, or an answer is longer than the context.
    """
    results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    rows = _group_by_question(requests, model.config.max_position_embeddings, batch_tokens)
    for batch in _batches(rows, batch_tokens):
        indices = [index for row in batch for index in row.request_indices]
        for index, result in zip(indices, _score_batch(model, batch), strict=True):
            results[index] = result
        advance(len(indices))
    return results


def _group_by_question(requests: Sequence[Request], context_length: int, row_tokens: int) -> list[_Row]:
    """The requests in rows by question, the longest first; answers beyond `row_tokens` go into another row."""
    rows: list[_Row] = []
    row_of_question: dict[tuple[int, ...], _Row] = {}
    for index, (question, answer) in enumerate(requests):
        if not question or not answer or len(answer) > context_length:
            raise ValueError(f"request {index} needs a question, and an answer of 1 to {context_length} tokens")
        # The last token of an answer is not fed, so one more than the context fits.
        truncated = tuple(question[-(context_length + 1 - len(answer)) :])
        row = row_of_question.get(truncated)
        # A task may ask the same of everything, and the mask grows with the square of the row.
        if row is None or len(truncated) + sum(map(len, row.answers)) + len(answer) > row_tokens:
            row = row_of_question[truncated] = _Row(truncated, [], [])
            rows.append(row)
        row.answers.append(answer)
        row.request_indices.append(index)
    return sorted(rows, key=lambda row: -row.length)


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows of similar length; the first of a batch is its longest."""
    batch: list[_Row] = []
    for row in rows:
        if batch and batch[0].length * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score_batch(model: KeyLM, batch: Sequence[_Row]) -> list[tuple[float, bool]]:
    """The results of a batch's answers, in order."""
    # Lay out each row: its prefix (owner 0), then the remainders of its answers (owners 1, 2, ...). Padding has -1.
    length = batch[0].length
    tokens, positions = torch.zeros(2, len(batch), length, dtype=torch.long)
    owners = torch.full((len(batch), length), -1)
    # For each answer, the flat indices of the inputs that predict its tokens.
    sources: list[Tensor] = []
    for index, row in enumerate(batch):
        last_of_question, prefix_end = len(row.question) - 1, len(row.prefix)
        tokens[index, :prefix_end] = torch.tensor(row.prefix)
        positions[index, :prefix_end] = torch.arange(prefix_end)
        owners[index, :prefix_end] = 0
        end = prefix_end
        for owner, remainder in enumerate(row.remainders, start=1):
            begin, end = end, end + len(remainder)
            tokens[index, begin:end] = torch.tensor(remainder, dtype=torch.long)
            positions[index, begin:end] = torch.arange(prefix_end, prefix_end + len(remainder))
            owners[index, begin:end] = owner
            sources.append(index * length + torch.tensor([*range(last_of_question, prefix_end), *range(begin, end)]))
    device = model.device
    mask = _tree_mask(owners.to(device))
    hidden = model(tokens.to(device), positions=positions.to(device), mask=mask).flatten(0, 1)

    # Answers share the inputs of their prefix: compute the logits of each input once, and look them up for all.
    answers = [torch.tensor(answer) for row in batch for answer in row.answers]
    unique_sources, source_rows = torch.unique(torch.cat(sources).to(device), return_inverse=True)
    logits = linear(hidden[unique_sources], model.lm_head.weight).float()
    chosen, greatest = logits[source_rows, torch.cat(answers).to(device)], logits.amax(dim=-1)
    is_greedy = (chosen == greatest[source_rows]).cpu()
    # Log-sum-exp in place: allocating memory of this size takes longer than filling it.
    log_totals = logits.sub_(greatest[:, None]).exp_().sum(dim=-1).log_().add_(greatest)
    log_probs = (chosen - log_totals[source_rows]).cpu()

    sizes = [len(answer) for answer in answers]
    return [
        (answer_log_probs.sum().item(), bool(greedy.all()))
        for answer_log_probs, greedy in zip(torch.split(log_probs, sizes), torch.split(is_greedy, sizes), strict=True)
    ]


def _tree_mask(owners: Tensor) -> Tensor:
    """Boolean (batch, 1, time, time): a token sees the prefix (owner 0) and its own answer, up to itself."""
    query, key = owners[:, None, :, None], owners[:, None, None, :]
    allowed: Tensor = ((key == 0) | (key == query)).tril()
    return allowed
