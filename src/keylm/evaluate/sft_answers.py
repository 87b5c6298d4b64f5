"""How well held-out SFT answers are predicted, and what constraints cost real answers in fluency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from keylm.common.console import progress
from keylm.common.documents import Document, is_held_out
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.prepare.held_out import last_answers
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.data.prepare.workers import source_seed
from keylm.data.sources.registry import read_source, source_type
from keylm.evaluate.bits_per_byte import continuation_bits, plain_bits_per_byte
from keylm.instructions import constrained_chat
from keylm.model.transformer import KeyLM
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer


def answer_bits_per_byte(run: Run, models: Mapping[str, KeyLM], num: int) -> dict[str, dict[str, float]]:
    """Bits per byte of the last answer of held-out conversations, after everything said before it.

    Args:
        run: The run.
        models: Models by the stage that trained them.
        num: Conversations of each SFT source, at most.

    Returns:
        By source: `answers` (their number) and bits per byte by stage.
    """
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    stores = {source.name: open_store(run, "sft", source.name, "validation") for source in _sft_sources(run)}
    rows = {name: list(islice(last_answers(store), num)) for name, store in stores.items() if store.num_documents}
    results: dict[str, dict[str, float]] = {name: {"answers": len(answers)} for name, answers in rows.items()}
    with progress("SFT answers", len(models) * sum(map(len, rows.values())), "answers") as bar:
        for name, answers in rows.items():
            # Of the text alone: the end-of-turn token costs bits, but is no text.
            num_bytes = sum(len(tokenizer.decode(answer).encode()) for _, answer in answers)
            for stage, model in models.items():
                bits = continuation_bits(model, answers, run.recipe.model.max_position_embeddings, bar.advance)
                results[name][stage] = round(float(bits.sum()) / num_bytes, 4)
    return results


def constrained_answer_bits_per_byte(run: Run, base_model: KeyLM, num: int) -> dict[str, dict[str, float]]:
    """Bits per byte of real answers before and after they were edited to satisfy constraints.

    The answers are scored as plain text, without their requests. Edits that merely pass the checks and do not read like
    text would raise the number.

    Args:
        run: The run.
        base_model: The pretrained weights.
        num: Held-out answers of each `constrained-chat` source, at most.

    Returns:
        By source: `answers` (their number), bits per byte of the `original` and the `constrained` ones, and
        `relative_increase`.
    """
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    results: dict[str, dict[str, float]] = {}
    for source in _sft_sources(run):
        if not source.edits_answers:
            continue
        # Three steps per answer: making the pair, and scoring either side of it.
        with progress(f"answers of {source.name}", 3 * num, "answers") as bar:
            pairs = []
            for pair in islice(_held_out_pairs(run, source), num):
                pairs.append(pair)
                bar.advance()
            if not pairs:
                continue
            original, constrained = (
                plain_bits_per_byte(base_model, tokenizer, texts, bar.advance) for texts in zip(*pairs, strict=True)
            )
        results[source.name] = {
            "answers": len(pairs),
            "original": round(original, 4),
            "constrained": round(constrained, 4),
            "relative_increase": round(constrained / original - 1, 4),
        }
    return results


def _sft_sources(run: Run) -> list[SourceConfig]:
    """The sources that SFT trains on."""
    return [source for source in available_sources(run, "sft") if source.weight]


def _held_out_pairs(run: Run, source: SourceConfig) -> Iterator[tuple[str, str]]:
    """The original and the constrained answer of each held-out conversation that passes cleaning.

    What decides is the digest of the original conversation, because pretraining may read the originals of the rest.
    """
    clean, seed = Cleaner(run, source), source_seed(run.recipe, "sft")
    origin = source_type(source).origin(source)
    for document, constrained in constrained_chat.constrained_pairs(read_source(origin, seed), seed):
        cleaned = clean(document)
        if isinstance(cleaned, Document) and is_held_out(cleaned.digest, run.recipe.data.validation_fraction):
            yield document.contents[-1], constrained.contents[-1]
