"""The pairs that the `dpo` stage learns from, made of the same sources as the conversations of SFT."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

from keylm import chat
from keylm.data import sources
from keylm.data.cleaning import Cleaner
from keylm.data.instructions import KIND_SETS, preferences
from keylm.data.instructions.preferences import Pair
from keylm.data.instructions.task import said
from keylm.data.typos import Siblings
from keylm.errors import UserError
from keylm.recipe import Instructions, Verified
from keylm.run import Run
from keylm.tokenizer import Tokenizer

_ATTEMPTS = 100
"""Pairs that are made for one that fits, at most."""


def read(run: Run, num_pairs: int) -> list[Pair]:
    """So many pairs from the sources of `sft.sources` that can give some, in proportion to their weights, each pair
    short enough for a sequence of SFT.

    A pure function of the recipe and of its sources' text. Nothing that evaluation holds out is in them.

    Raises:
        UserError: a source is unusable, or gives fewer pairs than its share.
    """
    fits = partial(_fits, Tokenizer.load(run.stage("tokenizer")), run.recipe.sft.sequence_length)
    found: list[Pair] = []
    givers = [source for source in run.recipe.sft.sources if isinstance(source, Instructions | Verified)]
    total, weight = sum(source.weight for source in givers), 0.0
    for source in givers:
        weight += source.weight
        wanted = round(num_pairs * weight / total) - len(found)
        pairs = list(islice(filter(fits, islice(_of(run, source), wanted * _ATTEMPTS)), wanted))
        if len(pairs) < wanted:
            raise UserError(
                f"source `{source.name}` gives {len(pairs):,} pairs, and its share of dpo.pairs is {wanted:,}: lower "
                f"dpo.pairs, or the source's weight"
            )
        found += pairs
    return found


def _fits(tokenizer: Tokenizer, length: int, pair: Pair) -> bool:
    """Whether both conversations are at most `length` tokens long."""
    both = [[*pair.prompt, said(answer)] for answer in (pair.chosen, pair.rejected)]
    return all(len(ids) <= length for ids, _ in chat.encode_batch(tokenizer, both))


def _of(run: Run, source: Instructions | Verified) -> Iterator[Pair]:
    recipe = run.recipe
    # Another seed than in pretraining and in SFT, so that real exchanges come under other constraints.
    seed = recipe.seed + 2
    if isinstance(source, Instructions):
        return preferences.generated(seed, KIND_SETS[source.kinds])
    siblings = Siblings(cleaner=partial(Cleaner, run), validation_fraction=recipe.data.validation_fraction)
    return preferences.constrained(siblings.trained_on(source.of, sources.read(source.of, seed)), seed)
