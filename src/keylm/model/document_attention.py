"""Causal attention within the documents of packed sequences, without a mask.

With a mask, the kernel would compute scores for all pairs of positions of a sequence, and sum them in another order
than for a document that stands alone. Here all documents of one length are attended as one batch. In float32 this gives
each document exactly the bits that it has alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from keylm.model.kernels.ops import causal_attention

_LENGTH_MULTIPLE = 64
"""In bfloat16, document lengths are rounded up to a multiple of this: each new shape costs oneDNN a kernel and its
memory, and the compiled attention of `keylm.model.kernels` works on blocks of 64 queries."""


@dataclass(frozen=True)
class PackedDocuments:
    """The documents of packed rows (B, T), regrouped so that documents of one length form a dense batch.

    For example, in float32, `document_ids = [[0, 0, 0, 1], [0, 0, 0, 0]]` has documents of 3, 1 and 4 tokens. Ordered
    by length they fill 8 slots, `groups` is [(1, 1), (1, 3), (1, 4)], and `slots` is [1, 2, 3, 0, 4, 5, 6, 7].
    """

    groups: list[tuple[int, int]]
    """(number of documents, length) of each group, by increasing length; lengths include the padding."""
    slots: Tensor
    """The slot of every position of the flattened batch, (B * T,) int64."""

    @staticmethod
    def of(document_ids: Tensor, dtype: torch.dtype) -> PackedDocuments:
        """Group the documents of `document_ids` (B, T), for attention in `dtype`."""
        multiple = 1 if dtype == torch.float32 else _LENGTH_MULTIPLE
        starts = document_starts(document_ids).flatten().nonzero()[:, 0]
        lengths = torch.diff(starts, append=starts.new_tensor([document_ids.numel()]))
        padded = (lengths + multiple - 1) // multiple * multiple
        # Stable, so that documents of one length keep their order on every machine.
        order = padded.argsort(stable=True)
        starts, lengths, padded = starts[order], lengths[order], padded[order]
        first_slots = padded.cumsum(0) - padded
        slots = torch.empty_like(document_ids).flatten()
        slots[_ranges(starts, lengths)] = _ranges(first_slots, lengths)
        group_lengths, counts = torch.unique_consecutive(padded, return_counts=True)
        return PackedDocuments(list(zip(counts.tolist(), group_lengths.tolist(), strict=True)), slots)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend queries (B, N, T, D) to keys and values (B, K, T, D), each document by itself: (B, T, N, D)."""
        sizes = [count * length for count, length in self.groups]
        # (B, heads, T, D) to (slots, heads, D), with zeros in the slots of padding. Causal attention never lets a
        # document's own queries see them, because they come last.
        grouped = []
        for x in (q, k, v):
            flat = x.transpose(1, 2).flatten(0, 1)
            slots = flat.new_zeros(sum(sizes), *flat.shape[1:]).index_copy(0, self.slots, flat)
            grouped.append(torch.split(slots, sizes))
        outputs = []
        for (count, length), *parts in zip(self.groups, *grouped, strict=True):
            queries, keys, values = (x.view(count, length, *x.shape[1:]).transpose(1, 2) for x in parts)
            outputs.append(causal_attention(queries, keys, values).flatten(0, 1))
        out: Tensor = _TakeRows.apply(torch.cat(outputs), self.slots)  # type: ignore[no-untyped-call]
        return out.view(q.shape[0], q.shape[2], *q.shape[1::2])


class _TakeRows(torch.autograd.Function):
    """`x[index]` for an index without duplicates. The gradient is then a copy, where autograd would add, slowly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = len(x)
        return x[index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.num_rows, *grads[0].shape[1:]).index_copy(0, index, grads[0]), None


def document_starts(document_ids: Tensor) -> Tensor:
    """Boolean (B, T): whether a document starts at each position, for document ids (B, T)."""
    starts = torch.ones_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return starts


def document_positions(document_ids: Tensor) -> Tensor:
    """Positions (B, T) that restart from 0 in every document, for document ids (B, T)."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    starts: Tensor = torch.where(document_starts(document_ids), index, 0).cummax(dim=1).values
    return index - starts


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Concatenate the ranges `start, start + 1, ...` of the given lengths, without a loop."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=starts.device) + (starts - before).repeat_interleave(lengths)
