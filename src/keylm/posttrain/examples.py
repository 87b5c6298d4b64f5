"""Examples for DPO and GRPO, from the same sources as SFT's conversations, but sampled with other seeds."""

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

_MAX_ATTEMPTS = 100
"""Examples that are tried for each one needed, before a source is considered exhausted."""

Result = TypeVar("Result")


def sample_examples(
    run: Run,
    recipe_key: str,
    num_examples: int,
    sources: Sequence[SourceConfig],
    convert: Callable[[Example, Random], Result | None],
) -> list[Result]:
    """Sample examples from `sources`, in proportion to their weights, and convert each.

    A pure function of the recipe and of the sources' text, and different for each stage. Nothing that evaluation holds
    out is among the examples.

    Args:
        run: whose recipe and tokenizer to use. Conversations longer than a sequence of SFT are skipped.
        recipe_key: the key that sets `num_examples`, such as `dpo.num_pairs`; its section names the stage.
        num_examples: how many results to return.
        sources: where the examples come from.
        convert: makes a result of an example, or None to skip it.

    Raises:
        UserError: a source is unusable, or yields fewer than its share.
    """
    stage = recipe_key.partition(".")[0]
    fits = fits_sequence(run)
    results: list[Result] = []
    total_weight, weight_so_far = sum(source.weight for source in sources), 0.0
    for source in sources:
        # Rounding the cumulative share, not each source's own, makes the shares add up to `num_examples`.
        weight_so_far += source.weight
        share = round(num_examples * weight_so_far / total_weight) - len(results)
        candidates = islice(_read_examples(run, source, stage), share * _MAX_ATTEMPTS)
        fitting = (example for example in candidates if fits(example.document))
        converted = (convert(example, Random(f"{stage}:{number}")) for number, example in enumerate(fitting))
        accepted = list(islice((result for result in converted if result is not None), share))
        if len(accepted) < share:
            raise UserError(
                f"source `{source.name}` gives {len(accepted):,} of the {share:,} examples that {recipe_key} asks of "
                f"it: lower {recipe_key}, or its weight"
            )
        results += accepted
    return results


def fits_sequence(run: Run) -> Callable[[list[Message]], bool]:
    """A predicate: whether a conversation fits a sequence of SFT."""
    tokenizer, length = Tokenizer.load(run.stage("tokenizer")), run.recipe.sft.sequence_length
    return lambda messages: len(encode_messages(tokenizer, messages)[0]) <= length


def _read_examples(run: Run, source: SourceConfig, stage: str) -> Iterator[Example]:
    """Examples of one source, made from the training documents of the source whose text it uses."""
    seed, behavior = run.recipe.seed, source_type(source)
    origin = behavior.origin(source)
    parents = ParentSources(make_cleaner=partial(Cleaner, run), validation_fraction=run.recipe.data.validation_fraction)
    documents = parents.training_documents(origin, read_source(origin, seed, parents=parents))
    return behavior.generate_examples(source, stage, seed, documents)
