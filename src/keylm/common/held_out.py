"""Which documents of a source are held out for validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from keylm.common.documents import is_held_out

_MAX_WAITING_BYTES = 1 << 26
"""A source with so much text before its first held-out document waits no longer for it."""


class _Document(Protocol):
    @property
    def digest(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...


DocumentT = TypeVar("DocumentT", bound=_Document)


class HeldOut:
    """The digests that are held out of one source: a fraction of all (`is_held_out`), and never none or all of them.

    By the digest alone, a source of ten documents would have none for validation in nine of ten cases if a hundredth is
    held out. So the first documents wait until one of them is held out and another is not. If the source ends before
    that, the smallest digest of two or more is held out, and the largest is trained on.

    Args:
        fraction: the fraction to hold out; 0 for none at all.
        digests: the digests to hold out instead of a fraction, if the source has validation documents of its own.
    """

    def __init__(self, fraction: float, digests: frozenset[int] | None = None) -> None:
        self.fraction = fraction
        self._digests = digests
        self._settled: dict[int, bool] = {}

    def __contains__(self, digest: int) -> bool:
        if self._digests is not None:
            return digest in self._digests
        return self._settled.get(digest, False) or (digest not in self._settled and is_held_out(digest, self.fraction))

    def settle(self, documents: Iterable[DocumentT]) -> Iterator[DocumentT]:
        """Pass on the documents of the source, each after it is decided whether it is held out."""
        documents = iter(documents)
        is_open = self.fraction and self._digests is None
        waiting = list(self._take_until_both_splits(documents)) if is_open else []
        self._settle({document.digest for document in waiting})
        yield from waiting
        yield from documents

    def _take_until_both_splits(self, documents: Iterator[DocumentT]) -> Iterator[DocumentT]:
        splits, num_bytes = set(), 0
        for document in documents:
            yield document
            splits.add(is_held_out(document.digest, self.fraction))
            num_bytes += document.num_bytes
            if len(splits) == 2 or num_bytes >= _MAX_WAITING_BYTES:
                return

    def _settle(self, digests: set[int]) -> None:
        if not digests:
            return
        held_out = {digest for digest in digests if is_held_out(digest, self.fraction)} or {min(digests)}
        if held_out == digests:
            held_out.remove(max(digests))
        self._settled = {digest: digest in held_out for digest in digests}
