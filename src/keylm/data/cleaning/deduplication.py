"""Which documents came before: their digests, in about ten bytes each.

A Python set of 64-bit numbers takes 90 bytes per number. Here a set holds the newest alone; when it is full it is
merged into one sorted array of eight bytes per number.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from keylm.common.documents import DIGEST_BITS

_PREFIX_BITS = 16
_LEAST_NEW = 1 << 16
_NEW_SHARE = 1 / 64
"""The set may grow to so many numbers, or to this share of all: it is then a seventh of the memory or less."""


class DigestSet:
    """A sorted array of different uint64, asked for one number at a time in less than a microsecond.

    The first 16 bits of a number say between which places it can be; digests are spread evenly, so few are left to
    search by halves.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self._view = numbers.data
        prefixes = np.arange(1 << _PREFIX_BITS, dtype=np.uint64) << np.uint64(DIGEST_BITS - _PREFIX_BITS)
        self._starts = [*np.searchsorted(numbers, prefixes).tolist(), len(numbers)]

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: int) -> bool:
        prefix = number >> (DIGEST_BITS - _PREFIX_BITS)
        stop = self._starts[prefix + 1]
        place = bisect_left(self._view, number, self._starts[prefix], stop)
        return place < stop and self._view[place] == number


class ExactDeduplicator:
    """The digests of the documents that came before; `len` of it is how many there are."""

    def __init__(self) -> None:
        self._new: set[int] = set()
        self._old = DigestSet(np.empty(0, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def add(self, digest: int) -> bool:
        """Take note of a digest of 64 bits; whether it is new."""
        if digest in self._new or digest in self._old:
            return False
        self._new.add(digest)
        if len(self._new) > max(_LEAST_NEW, len(self._old) * _NEW_SHARE):
            self._merge()
        return True

    def _merge(self) -> None:
        newest = np.sort(np.fromiter(self._new, dtype=np.uint64, count=len(self._new)))
        merged = np.concatenate([self._old.numbers, newest])
        # A stable sort merges runs that are in order already.
        merged.sort(kind="stable")
        self._old, self._new = DigestSet(merged), set()
