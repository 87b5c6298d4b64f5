"""Examples for the trainings after SFT, made of the same sources as its conversations, by other draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from random import Random
from typing import TypeVar

from keylm import chat
from keylm.chat import Message
from keylm.data import sources
from keylm.data.cleaning import Cleaner
from keylm.data.instructions import KIND_SETS, verified
from keylm.data.instructions.requests import Kinds, topical
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import Example
from keylm.data.siblings import Siblings
from keylm.errors import UserError
from keylm.recipe import Instructions, Verified
from keylm.run import Run
from keylm.tokenizer import Tokenizer

_ATTEMPTS = 100
"""Examples that are made for one that serves, at most."""

Giver = Instructions | Verified
Made = TypeVar("Made")


def draw(
    run: Run, key: str, num: int, givers: Sequence[Giver], make: Callable[[Example, Random], Made | None]
) -> list[Made]:
    """`num` of what `make` makes of examples of the `givers`, by their weights; where it gives None, the next serves.

    `key` is what asks for them in the recipe, such as `dpo.pairs`. Conversations are short enough for a sequence of
    SFT. A pure function of the recipe and of its sources' text, another for each stage. Nothing that evaluation holds
    out is in it.

    Raises:
        UserError: a source is unusable, or gives fewer than its share.
    """
    stage, fits = key.partition(".")[0], fit(run)
    found: list[Made] = []
    total, weight = sum(giver.weight for giver in givers), 0.0
    for giver in givers:
        weight += giver.weight
        share = round(num * weight / total) - len(found)
        examples = (each for each in islice(_of(run, giver, stage), share * _ATTEMPTS) if fits(each.document))
        made = (make(example, Random(f"{stage}:{number}")) for number, example in enumerate(examples))
        some = list(islice((each for each in made if each is not None), share))
        if len(some) < share:
            raise UserError(
                f"source `{giver.name}` gives {len(some):,} of the {share:,} examples that {key} asks of it: lower "
                f"{key}, or its weight"
            )
        found += some
    return found


def generated(seed: int, stage: str, kinds: Kinds) -> Iterator[Example]:
    """Requests without end, with one or two constraints, in the words and phrasings of training."""
    for number in count():
        sampler = Sampler(Random(f"{stage}:{seed}:{number}"))
        yield topical(sampler, sampler.rng.sample(kinds, sampler.choice((1, 1, 2))))


def fit(run: Run) -> Callable[[list[Message]], bool]:
    """Whether a conversation is short enough for a sequence of SFT."""
    tokenizer, length = Tokenizer.load(run.stage("tokenizer")), run.recipe.sft.sequence_length
    return lambda messages: len(chat.encode(tokenizer, messages)[0]) <= length


def _of(run: Run, giver: Giver, stage: str) -> Iterator[Example]:
    recipe = run.recipe
    if isinstance(giver, Instructions):
        return generated(recipe.seed, stage, KIND_SETS[giver.kinds])
    # Another seed than in pretraining and in SFT, so that real exchanges come under other constraints.
    seed = recipe.seed + 2
    siblings = Siblings(cleaner=partial(Cleaner, run), validation_fraction=recipe.data.validation_fraction)
    documents = siblings.trained_on(giver.of, sources.read(giver.of, seed))
    found = (verified.constrain(document, seed) for document in documents)
    return (example for example in found if example)
