"""The `tokenizer` stage: a vocabulary, learned from a sample of the pretraining mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from keylm.common.console import Bar, progress
from keylm.common.documents import is_held_out
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.registry import read_available
from keylm.recipe.sources import FilesConfig, SourceConfig
from keylm.run import Run
from keylm.tokenizer.training import train_tokenizer


def run_tokenizer(run: Run) -> dict[str, Any]:
    """Train the tokenizer and write its folder; returns the bytes that were sampled of each source.

    Each source gives its weight's share of `tokenizer.sample_bytes`, or all it has. Documents held out for validation
    are not looked at, nor are sources made of others: their words are there already.

    Raises:
        UserError: a source is unusable, or all of them hold too little text for the vocabulary.
    """
    recipe, sampled = run.recipe, Counter[str]()
    with progress("tokenizer", recipe.tokenizer.sample_bytes / 1e6, "MB") as bar:
        texts = _sample(run, sampled, bar)
        trained = train_tokenizer(texts, recipe.model.vocab_size, recipe.tokenizer.pre_tokenizer)
    trained.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
    return {"vocab_size": trained.vocab_size, "sampled_bytes": dict(sampled)}


def _sample(run: Run, sampled: Counter[str], bar: Bar) -> Iterator[str]:
    recipe = run.recipe
    sources = [source for source in recipe.data.sources if not getattr(source, "from_sources", None)]
    total_weight = sum(source.weight for source in sources) or 1.0
    for source in sources:
        budget = recipe.tokenizer.sample_bytes * source.weight / total_weight
        for text in _sample_source(run, source, budget):
            num_bytes = len(text.encode())
            sampled[source.name] += num_bytes
            bar.advance(num_bytes / 1e6)
            yield text
    bar.set_description("tokenizer: merging")


def _sample_source(run: Run, source: SourceConfig, budget: float) -> Iterator[str]:
    """Texts of up to `budget` bytes: evenly from all over local files, else from the beginning.

    Files often follow a subject or an alphabet. The other kinds come in an order that is as good as random, and a
    data set on the hub should not be downloaded whole for a sample of it.
    """
    cleaner, taken, reading = Cleaner(run, source), 0, ReadProgress()
    for document in read_available(source, run.recipe.seed, reading):
        if taken >= budget:
            return
        is_ahead = isinstance(source, FilesConfig) and taken > budget * (reading.share or 1)
        cleaned = "ahead of its share" if is_ahead else cleaner(document)
        if isinstance(cleaned, str) or is_held_out(cleaned.digest, run.recipe.data.validation_fraction):
            continue
        taken += cleaned.num_bytes
        yield from cleaned.contents
