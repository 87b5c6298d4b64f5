"""The `tokenizer` stage: trains the vocabulary on a sample of the pretraining mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from keylm.common.console import Bar, console
from keylm.common.console import progress as progress_bar
from keylm.common.held_out import HeldOut
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.sources.files import validation_digests
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.registry import read_available
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.training import MAX_WORD, drop_long_words, train_tokenizer


def run_tokenizer(run: Run) -> dict[str, Any]:
    """Train the tokenizer and write its folder; returns its size, and the bytes sampled from each source.

    Each source gives its weight's share of `tokenizer.sample_bytes`, or all it has. Left out are validation documents,
    and sources that are made from others, whose words are in the sample already.

    Raises:
        UserError: a source is unusable, or all of them hold too little text for the vocabulary.
    """
    recipe, sampled_bytes, long_words = run.recipe, Counter[str](), Counter[str]()
    with progress_bar("tokenizer", recipe.tokenizer.sample_bytes / 1e6, "MB") as bar:
        texts = _sample_mixture(run, sampled_bytes, long_words, bar)
        tokenizer = train_tokenizer(texts, recipe.model.vocab_size, recipe.tokenizer.pre_tokenizer)
    tokenizer.save(run.stage("tokenizer"), recipe.model.max_position_embeddings)
    for name, count in long_words.items():
        console.print(f"  {name}: {count:,} words of more than {MAX_WORD:,} characters are left out of the sample")
    return {
        "vocab_size": tokenizer.vocab_size,
        "sampled_bytes": dict(sampled_bytes),
        "long_words": dict(long_words),
    }


def _sample_mixture(run: Run, sampled_bytes: Counter[str], long_words: Counter[str], bar: Bar) -> Iterator[str]:
    """Texts of all sources, one source after the other; counts their bytes, and the words that are too long."""
    recipe = run.recipe
    # Without derived sources, which would only repeat words of the others, or their misspellings.
    sources = [source for source in recipe.data.sources if not source.parent_names]
    total_weight = sum(source.weight for source in sources) or 1.0
    for source in sources:
        budget = recipe.tokenizer.sample_bytes * source.weight / total_weight
        for text in _sample_source(run, source, budget):
            num_bytes = len(text.encode())
            sampled_bytes[source.name] += num_bytes
            bar.advance(num_bytes / 1e6)
            shorter, num_long = drop_long_words(text)
            if num_long:
                long_words[source.name] += num_long
            yield shorter
    bar.set_description("tokenizer: merging")


def _sample_source(run: Run, source: SourceConfig, budget: float) -> Iterator[str]:
    """Texts of up to `budget` bytes: evenly from all over a source that may be sorted, else from its beginning.

    Local files are often sorted by subject or name. The other types come in an order that is as good as random, and a
    hub data set should not be downloaded in full for a sample of it.
    """
    cleaner, taken_bytes, progress = Cleaner(run, source), 0, ReadProgress()
    held_out = HeldOut(run.recipe.data.validation_fraction, validation_digests(source, cleaner))
    for document in read_available(source, run.recipe.seed, progress):
        if taken_bytes >= budget:
            return
        if source.is_sorted and taken_bytes > budget * (progress.fraction or 1):
            # The sample is ahead of the reader: skip documents until it is not, so that it reaches the end.
            continue
        cleaned = cleaner(document)
        if isinstance(cleaned, str) or cleaned.digest in held_out:
            continue
        taken_bytes += cleaned.num_bytes
        yield from cleaned.contents
