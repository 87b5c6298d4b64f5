"""The `tokenizer` stage: a vocabulary, learned from a sample of the pretraining mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from keylm import tokenizer
from keylm.data import sources
from keylm.data.clean import clean
from keylm.data.documents import is_held_out
from keylm.data.reading import Reading
from keylm.recipe import Files, Recipe, Source
from keylm.run import Run
from keylm.screen import Bar, progress


def build(run: Run) -> dict[str, Any]:
    """Train the tokenizer and write its folder; returns the bytes that were sampled of each source.

    Each source gives its weight's share of `tokenizer.sample_bytes`, or all it has. Documents held out for validation
    are not looked at.

    Raises:
        UserError: a source is unusable, or all of them hold too little text for the vocabulary.
    """
    recipe, sampled = run.recipe, Counter[str]()
    with progress("tokenizer", recipe.tokenizer.sample_bytes / 1e6, "MB") as bar:
        texts = _sample(recipe, sampled, bar)
        trained = tokenizer.train(texts, recipe.model.vocab_size, recipe.tokenizer.pre_tokenizer)
    trained.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
    return {"vocab_size": trained.vocab_size, "sampled_bytes": dict(sampled)}


def _sample(recipe: Recipe, sampled: Counter[str], bar: Bar) -> Iterator[str]:
    total_weight = sum(source.weight for source in recipe.data.sources)
    for source in recipe.data.sources:
        budget = recipe.tokenizer.sample_bytes * source.weight / total_weight
        for text in _sample_source(source, budget, recipe):
            num_bytes = len(text.encode())
            sampled[source.name] += num_bytes
            bar.advance(num_bytes / 1e6)
            yield text
    bar.describe("tokenizer: merging")


def _sample_source(source: Source, budget: float, recipe: Recipe) -> Iterator[str]:
    """Texts of up to `budget` bytes: evenly from all over local files, else from the beginning.

    Files often follow a subject or an alphabet. The other kinds come in an order that is as good as random, and a
    data set on the hub should not be downloaded whole for a sample of it.
    """
    taken, reading = 0, Reading()
    for document in sources.read(source, recipe.seed, reading):
        if taken >= budget:
            return
        is_ahead = isinstance(source, Files) and taken > budget * (reading.share or 1)
        cleaned = "ahead of its share" if is_ahead else clean(document, recipe.data.min_document_bytes)
        if isinstance(cleaned, str) or is_held_out(cleaned.digest, recipe.data.validation_fraction):
            continue
        taken += cleaned.num_bytes
        yield from cleaned.contents
