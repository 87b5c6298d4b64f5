"""Examples for the trainings after SFT, made of the same sources as its conversations, by other draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from random import Random
from typing import TypeVar

from keylm.common.documents import Message
from keylm.common.errors import UserError
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.registry import read_source, source_type
from keylm.instructions.task import Example
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import Tokenizer

_ATTEMPTS = 100
"""Examples that are made for one that serves, at most."""

Made = TypeVar("Made")


def sample_examples(
    run: Run, key: str, num: int, givers: Sequence[SourceConfig], make: Callable[[Example, Random], Made | None]
) -> list[Made]:
    """`num` of what `make` makes of examples of the `givers`, by their weights; where it gives None, the next serves.

    `key` is what asks for them in the recipe, such as `dpo.num_pairs`. Conversations are short enough for a sequence of
    SFT. A pure function of the recipe and of its sources' text, another for each stage. Nothing that evaluation holds
    out is in it.

    Raises:
        UserError: a source is unusable, or gives fewer than its share.
    """
    stage, fits = key.partition(".")[0], fits_sequence(run)
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


def fits_sequence(run: Run) -> Callable[[list[Message]], bool]:
    """Whether a conversation is short enough for a sequence of SFT."""
    tokenizer, length = Tokenizer.load(run.stage("tokenizer")), run.recipe.sft.sequence_length
    return lambda messages: len(encode_messages(tokenizer, messages)[0]) <= length


def _of(run: Run, giver: SourceConfig, stage: str) -> Iterator[Example]:
    """Examples of one source, made of what is trained on of the source whose text it uses."""
    seed, behavior = run.recipe.seed, source_type(giver)
    origin = behavior.origin(giver)
    parents = ParentSources(make_cleaner=partial(Cleaner, run), validation_fraction=run.recipe.data.validation_fraction)
    documents = parents.training_documents(origin, read_source(origin, seed))
    return behavior.generate_examples(giver, stage, seed, documents)
