"""Causal attention within the documents of packed sequences: each document by itself, and no mask.

A mask would have the kernel work on all pairs of a sequence, and sum in another order than it does for a document that
is alone. Here documents of one length are attended as one batch. In float32 that gives each the very bits it has alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from keylm.model.kernels.ops import causal_attention

_MULTIPLE = 64
"""In bfloat16, lengths are rounded up to a multiple of this: every new shape costs a kernel and its memory, and the
compiled attention of `keylm.model.kernels` works in blocks of so many queries."""


@dataclass(frozen=True)
class PackedDocuments:
    """Where the documents of packed rows (B, T) are, and how they are laid out: those of one length side by side."""

    groups: list[tuple[int, int]]
    """How many documents there are of which length, padding included."""
    places: Tensor
    """(B * T,) for every position of the flattened batch, its place in the layout."""

    @staticmethod
    def of(segments: Tensor, dtype: torch.dtype) -> PackedDocuments:
        """The documents that `segments` (B, T) numbers, for attention in `dtype`."""
        multiple = 1 if dtype == torch.float32 else _MULTIPLE
        starts = document_starts(segments).flatten().nonzero()[:, 0]
        lengths = torch.diff(starts, append=starts.new_tensor([segments.numel()]))
        padded = (lengths + multiple - 1) // multiple * multiple
        order = padded.argsort(stable=True)
        starts, lengths, padded = starts[order], lengths[order], padded[order]
        firsts = padded.cumsum(0) - padded
        places = torch.empty_like(segments).flatten()
        places[_ranges(starts, lengths)] = _ranges(firsts, lengths)
        sizes, counts = torch.unique_consecutive(padded, return_counts=True)
        return PackedDocuments(list(zip(counts.tolist(), sizes.tolist(), strict=True)), places)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of queries (B, N, T, D) on keys and values (B, K, T, D): (B, T, N, D)."""
        laid_out = [torch.split(self._lay_out(x), [count * length for count, length in self.groups]) for x in (q, k, v)]
        seen = [_attend_alike(*parts) for parts in zip(*laid_out, self.groups, strict=True)]
        flat = torch.cat([x.flatten(0, 1) for x in seen])
        back: Tensor = _Take.apply(flat, self.places)  # type: ignore[no-untyped-call]
        return back.view(q.shape[0], q.shape[2], *q.shape[1::2])

    def _lay_out(self, x: Tensor) -> Tensor:
        """(B, N, T, D) to (padded, N, D)."""
        flat = x.transpose(1, 2).flatten(0, 1)
        padded = sum(count * length for count, length in self.groups)
        return flat.new_zeros(padded, *flat.shape[1:]).index_copy(0, self.places, flat)


class _Take(torch.autograd.Function):
    """Some rows of `x`, none of them twice: the gradient is then copied, where autograd would add, which is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = len(x)
        return x[index]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.size, *grads[0].shape[1:]).index_copy(0, index, grads[0]), None


def document_starts(segments: Tensor) -> Tensor:
    """Boolean (B, T): where a document starts, for document numbers (B, T)."""
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return starts


def document_positions(segments: Tensor) -> Tensor:
    """Positions (B, T) that start from 0 at every change of document, for document numbers (B, T)."""
    index = torch.arange(segments.shape[1], device=segments.device)
    starts: Tensor = torch.where(document_starts(segments), index, 0).cummax(dim=1).values
    return index - starts


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """The numbers from each start on, as many as its length, one range after the other."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=starts.device) + (starts - before).repeat_interleave(lengths)


def _attend_alike(q: Tensor, k: Tensor, v: Tensor, group: tuple[int, int]) -> Tensor:
    """Attention in documents of one length: from (count * length, N or K, D) to (count, length, N, D)."""
    q, k, v = (x.view(*group, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    return causal_attention(q, k, v)
