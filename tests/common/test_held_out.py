"""Holding out: by the digest, but never none or all of a source."""

import random
from dataclasses import dataclass

import pytest

from keylm.common import held_out as module
from keylm.common.documents import is_held_out
from keylm.common.held_out import HeldOut


@dataclass(frozen=True)
class Numbered:
    digest: int
    num_bytes: int = 100


def split(digests, fraction):
    held_out = HeldOut(fraction)
    passed = [document.digest for document in held_out.settle(map(Numbered, digests))]
    assert passed == digests
    return [digest for digest in digests if digest in held_out]


@pytest.mark.parametrize("fraction", [0.005, 0.1, 0.49])
@pytest.mark.parametrize("count", [2, 3, 6, 68])
def test_two_documents_or_more_give_both_splits(count, fraction):
    generator = random.Random(f"{count} {fraction}")
    for _ in range(200):
        digests = [generator.getrandbits(64) for _ in range(count)]
        assert 0 < len(split(digests, fraction)) < count


def test_one_document_is_trained_on():
    assert split([0], 0.4) == split([1 << 63], 0.4) == split([], 0.4) == []


def test_many_documents_are_split_by_their_digests_alone():
    generator = random.Random(0)
    digests = [generator.getrandbits(64) for _ in range(10_000)]
    assert split(digests, 0.01) == [digest for digest in digests if is_held_out(digest, 0.01)]


def test_without_a_fraction_nothing_is_held_out():
    assert split([0, 1, 2], 0.0) == []


def test_documents_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(module, "_MAX_WAITING_BYTES", 1_000)
    taken = []
    documents = (taken.append(number) or Numbered((1 << 63) + number) for number in range(1_000))
    held_out = HeldOut(0.001)
    next(held_out.settle(documents))
    assert len(taken) == 10
    assert 1 << 63 in held_out


def test_a_repeated_document_is_decided_alike():
    assert split([5 << 60, 6 << 60, 5 << 60], 0.01) == [5 << 60, 5 << 60]
