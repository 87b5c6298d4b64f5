"""Held-out documents to try a model on: beginnings of texts, and conversations without their last answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np

from keylm.data.prepare.outputs import available_sources, open_store
from keylm.data.prepare.token_store import TokenStore
from keylm.run import Run

_BEGINNING_TOKENS = 12
"""Tokens of a text that a model is to continue."""


@dataclass(frozen=True)
class HeldOutPrompt:
    """A beginning of a held-out document, and how it goes on."""

    source: str
    prompt: list[int]
    """Token ids. Of a conversation it ends with the head of the assistant's last turn."""
    reference: list[int]
    """Token ids of what follows: the rest of the text, or the last answer with its end-of-turn token."""


def held_out_beginnings(run: Run, num: int, max_tokens: int) -> list[HeldOutPrompt]:
    """The beginnings of `num` held-out texts of pretraining, spread over the sources, and `max_tokens` that follow."""
    stores = _validation_stores(run, "pretrain")
    return _spread({name: _beginnings(store, max_tokens) for name, store in stores.items()}, num)


def held_out_conversations(run: Run, num: int, max_prompt_tokens: int) -> list[HeldOutPrompt]:
    """The first held-out conversations of SFT with prompts of at most `max_prompt_tokens`, spread over the sources."""
    stores = _validation_stores(run, "sft")
    answers = {
        name: (pair for pair in last_answers(store) if len(pair[0]) <= max_prompt_tokens)
        for name, store in stores.items()
    }
    return _spread(answers, num)


def last_answers(store: TokenStore) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of all that is said before the last answer of each conversation, and of that answer and its end."""
    start = 0
    for end in store.document_ends.tolist():
        tokens, loss_mask = store.tokens(start, end), store.loss_mask(start, end)
        start = end
        # The loss mask marks each answer as one run of positions; the last run begins after the last gap.
        positions = np.flatnonzero(loss_mask)
        first = positions[np.flatnonzero(np.diff(positions, prepend=-2) > 1)[-1]]
        yield tokens[:first].tolist(), tokens[first : positions[-1] + 1].tolist()


def _beginnings(store: TokenStore, max_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
    start = 0
    for end in store.document_ends.tolist():
        tokens = store.tokens(start, min(end - 1, start + _BEGINNING_TOKENS + max_tokens)).tolist()
        # Every document is closed by end-of-text, so the next one begins after it.
        end_of_text = store.tokens(end - 1, end).tolist()
        start = end
        yield end_of_text + tokens[:_BEGINNING_TOKENS], tokens[_BEGINNING_TOKENS:]


def _validation_stores(run: Run, stage: str) -> dict[str, TokenStore]:
    """The held-out splits of the sources that are trained on, by name, the source of the largest weight first.

    Generated documents, which every run has alike, are left out if there are others.
    """
    if not run.is_finished("prepare"):
        return {}
    sources = sorted(available_sources(run, stage), key=lambda source: -source.weight)
    own = [source for source in sources if source.weight and not source.is_generated]
    chosen = own or [source for source in sources if source.weight]
    stores = {source.name: open_store(run, stage, source.name, "validation") for source in chosen}
    return {name: store for name, store in stores.items() if store.num_documents}


def _spread(sources: Mapping[str, Iterable[tuple[list[int], list[int]]]], num: int) -> list[HeldOutPrompt]:
    """The first `num` prompts, one of each source in turn."""
    rounds = zip_longest(*sources.values())
    prompts = (
        HeldOutPrompt(name, *pair) for pairs in rounds for name, pair in zip(sources, pairs, strict=True) if pair
    )
    return list(islice(prompts, num))
