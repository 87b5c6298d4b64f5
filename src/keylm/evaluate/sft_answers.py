"""How well held-out answers of the tuning data are predicted, and what constraints do to real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from keylm.common.console import Bar, progress
from keylm.common.documents import Document, is_held_out
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.data.prepare.token_store import TokenStore
from keylm.data.prepare.workers import source_seed
from keylm.data.sources.registry import read_source, source_type
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.instructions import constrained_chat
from keylm.model.transformer import KeyLM
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer


def predicted(run: Run, models: Mapping[str, KeyLM], num: int) -> dict[str, dict[str, float]]:
    """Bits per byte of the assistant's last words in the first `num` held-out conversations of each source of SFT.

    Each answer stands behind all that was said before it, as in training; `answers` is their number.
    """
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    stores = {source.name: open_store(run, "sft", source.name, "validation") for source in _sources(run)}
    rows = {name: list(islice(_last_answers(store), num)) for name, store in stores.items() if store.num_documents}
    found: dict[str, dict[str, float]] = {name: {"answers": len(some)} for name, some in rows.items()}
    with progress("answers of the tuning data", len(models) * sum(map(len, rows.values())), "answers") as bar:
        for name, some in rows.items():
            size = sum(len(tokenizer.decode(answer).encode()) for _, answer in some)
            bits = {stage: _bits(run, model, some, bar) for stage, model in models.items()}
            found[name] |= {stage: round(count / size, 4) for stage, count in bits.items()}
    return found


def made(run: Run, plain: KeyLM, num: int) -> dict[str, dict[str, float]]:
    """Bits per byte of answers that were made to follow constraints, and of the real ones that they were made of.

    Of each `constrained-chat` source, the first `num` held-out ones, read by a model of plain text without their
    requests. `rise` is the share by which they are less likely.
    """
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    found: dict[str, dict[str, float]] = {}
    for source in (source for source in _sources(run) if source.edits_answers):
        with progress(f"answers of {source.name}", 3 * num, "answers") as bar:
            pairs = list(islice(_counted(_held_out_pairs(run, source), bar), num))
            if not pairs:
                continue
            real, changed = (_plain_bits(run, plain, tokenizer, texts, bar) for texts in zip(*pairs, strict=True))
        found[source.name] = {
            "answers": len(pairs),
            "real": round(real, 4),
            "made": round(changed, 4),
            "rise": round(changed / real - 1, 4),
        }
    return found


def _sources(run: Run) -> list[SourceConfig]:
    """What SFT learns from."""
    return [source for source in available_sources(run, "sft") if source.weight]


def _last_answers(store: TokenStore) -> Iterator[tuple[list[int], list[int]]]:
    """What stands before the last answer of each conversation, and that answer with the token that closes it."""
    start = 0
    for end in store.document_ends.tolist():
        tokens, loss_mask = store.tokens(start, end), store.loss_mask(start, end)
        start = end
        places = np.flatnonzero(loss_mask)
        first = places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]]
        yield tokens[:first].tolist(), tokens[first : places[-1] + 1].tolist()


def _held_out_pairs(run: Run, source: SourceConfig) -> Iterator[tuple[str, str]]:
    """The real answer and the made one of the conversations that are held out, but for those that cleaning drops.

    It is the real conversation that is held out: pretraining may read those of the rest.
    """
    clean, seed = Cleaner(run, source), source_seed(run.recipe, "sft")
    origin = source_type(source).origin(source)
    for document, changed in constrained_chat.constrained_pairs(read_source(origin, seed), seed):
        real = clean(document)
        if isinstance(real, Document) and is_held_out(real.digest, run.recipe.data.validation_fraction):
            yield document.contents[-1], changed.contents[-1]


def _counted(pairs: Iterator[tuple[str, str]], bar: Bar) -> Iterator[tuple[str, str]]:
    """The pairs, each of which moves the bar."""
    for pair in pairs:
        bar.advance()
        yield pair


def _plain_bits(run: Run, model: KeyLM, tokenizer: Tokenizer, texts: tuple[str, ...], bar: Bar) -> float:
    """Bits per byte of texts, each behind an end-of-text token."""
    rows = [([tokenizer.end_of_text], tokenizer.encode(text)) for text in texts]
    return _bits(run, model, rows, bar) / sum(len(text.encode()) for text in texts)


def _bits(run: Run, model: KeyLM, rows: list[tuple[list[int], list[int]]], bar: Bar) -> float:
    return float(continuation_bits(model, rows, run.recipe.model.max_position_embeddings, bar.advance).sum())
