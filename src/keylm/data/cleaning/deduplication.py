"""Exact deduplication: the digests of the documents that came before, in about ten bytes each.

A Python set of 64-bit numbers takes 90 bytes per number. Here a set holds only the latest ones; when it is full, it is
merged into a sorted array of eight bytes per number.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from keylm.common.documents import DIGEST_BITS

_PREFIX_BITS = 16
_MIN_RECENT = 1 << 16
_RECENT_FRACTION = 1 / 64
"""The set may hold `_MIN_RECENT` numbers, or this fraction of all: it then takes a seventh of the memory or less."""


class DigestSet:
    """A set of uint64 as a sorted array; a lookup takes less than a microsecond.

    The first 16 bits of a number select the range of the array that it can be in. Digests are distributed evenly, so
    few numbers are left for a binary search.

    Args:
        numbers: sorted and distinct, (n,) uint64.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        # A memoryview gives Python integers, so that bisect does not make a numpy scalar for every comparison.
        self._view = numbers.data
        prefixes = np.arange(1 << _PREFIX_BITS, dtype=np.uint64) << np.uint64(DIGEST_BITS - _PREFIX_BITS)
        self._starts = [*np.searchsorted(numbers, prefixes).tolist(), len(numbers)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: int) -> bool:
        prefix = number >> (DIGEST_BITS - _PREFIX_BITS)
        stop = self._starts[prefix + 1]
        index = bisect_left(self._view, number, self._starts[prefix], stop)
        return index < stop and self._view[index] == number


class ExactDeduplicator:
    """The digests of all documents so far; `len` is their number."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._merged = DigestSet(np.empty(0, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._recent) + len(self._merged)

    def add(self, digest: int) -> bool:
        """Record a 64-bit digest; returns whether it is new."""
        if digest in self._recent or digest in self._merged:
            return False
        self._recent.add(digest)
        if len(self._recent) > max(_MIN_RECENT, len(self._merged) * _RECENT_FRACTION):
            recent = np.sort(np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent)))
            merged = np.concatenate([self._merged.numbers, recent])
            # On two sorted runs, numpy's stable sort is a merge.
            merged.sort(kind="stable")
            self._merged, self._recent = DigestSet(merged), set()
        return True
