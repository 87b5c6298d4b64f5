"""Near duplicates across sources, by all four stages of datatrove's MinHash."""

import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from datatrove.executor.local import LocalPipelineExecutor
from loguru import logger

from keylm.common.documents import Document
from keylm.data.cleaning.near_duplicates import find_near_duplicates

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lm", "ck")]


class Units:
    """The documents of three sources; sent to other processes, so not a closure."""

    def __init__(self, units):
        self.units = units

    def __call__(self, unit):
        return [(Document(text=text).digest, text) for text in self.units[unit]]


def execute(pipeline, num_tasks, folder, title):
    logger.disable("datatrove")
    LocalPipelineExecutor(pipeline, num_tasks, workers=1, logging_dir=str(folder)).run()


def shingles(text):
    words = text.split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(one, other):
    one, other = shingles(one), shingles(other)
    return len(one & other) / len(one | other)


@pytest.fixture(scope="module")
def parts():
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=300)) for _ in range(60)]
    changed = []
    for text in texts[:20]:
        words = text.split()
        words[generator.randrange(300)] = "elsewhere"
        changed.append(" ".join(words))
    # The second source has 20 near duplicates of the first's; the third is empty, the fourth repeats one word for word.
    return [texts[:30], [*changed, *texts[30:]], [], [texts[25], "too short"]]


def test_one_document_of_each_cluster_stays(parts, tmp_path):
    dropped = find_near_duplicates(Units(parts), len(parts), tmp_path / "near", execute)
    texts = {Document(text=text).digest: text for part in parts for text in part}
    close = [pair for pair in combinations(texts, 2) if similarity(texts[pair[0]], texts[pair[1]]) > 0.9]
    assert len(close) == 20
    assert Counter(sum(digest in dropped for digest in pair) for pair in close) == {1: 20}
    assert len(dropped) == 20
    saved = np.load(tmp_path / "near" / "drop.npy")
    assert saved.dtype == np.uint64
    assert saved.tolist() == sorted(digest for digest in texts if digest in dropped)


def test_results_are_reproducible_and_kept(parts, tmp_path):
    first = find_near_duplicates(Units(parts), len(parts), tmp_path / "one", execute)
    second = find_near_duplicates(Units(parts), len(parts), tmp_path / "two", execute)
    assert first.numbers.tolist() == second.numbers.tolist()
    kept = find_near_duplicates(Units([]), len(parts), tmp_path / "one", execute)
    assert kept.numbers.tolist() == first.numbers.tolist()


def test_where_all_differ_nothing_is_dropped(parts, tmp_path):
    assert len(find_near_duplicates(Units([parts[0][:5], parts[1][20:25]]), 2, tmp_path / "near", execute)) == 0
