"""A training batch in colours: which source, which documents, and which tokens are learned from."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import numpy as np
from rich.console import Console
from rich.text import Text

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

LEARNED, READ, PADDING = "green", "bright_black", "dim"
_SHADES = ("", "on grey11")


def show_preview(run: Run, stage: str, step: int, rows: int, console: Console = output) -> None:
    """Print the first `rows` sequences of a step.

    Documents are numbered within their row, and are shaded in turn; learned tokens are green, the others
    grey; control tokens are reversed, and padding is counted.

    Raises:
        UserError: `stage` does not train, or the step is beyond its end.
    """
    from keylm.train.stages import make_loader

    if stage not in ("pretrain", "sft"):
        raise UserError(f"--stage {stage}: only `pretrain` and `sft` have batches")
    training = run.recipe.train if stage == "pretrain" else run.recipe.sft
    if not 0 <= step < training.num_steps:
        raise UserError(f"--step {step}: {stage} has the steps 0 to {training.num_steps - 1:,}")
    run.metadata("prepare")
    loader = make_loader(run, stage)
    batch = loader.batch(step)
    document_ids = loader.document_ids(batch.sequence_refs)
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    console.print(_legend(training.intra_document_masking))
    for row in range(min(rows, len(batch.tokens))):
        ref = batch.sequence_refs[row]
        part = f", part {ref.part}" if batch.sequence_refs.num_parts > 1 else ""
        place = f"{ref.source}, epoch {ref.epoch}, block {ref.block}{part}"
        console.rule(f"{stage} step {step}, row {row}: {place}")
        console.print(paint(tokenizer, batch.tokens[row], batch.targets[row], document_ids[row]))


def paint(tokenizer: Tokenizer, tokens: Array, targets: Array, document_ids: Array) -> Text:
    """One row, of which tokens, targets and document numbers, each (time,), are given."""
    text = Text()
    size = len(tokens) - _padding(tokens, targets, document_ids, tokenizer.end_of_text)
    starts = np.flatnonzero(np.diff(document_ids[:size], prepend=-1)).tolist()
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], size], strict=True)):
        shade = _SHADES[number % 2]
        text.append(f"[{number + 1}]", style=f"bold cyan {shade}")
        # A token is learned as the target of the one before it; a row's first token was the row before's last target.
        learned = [False, *(targets[start : stop - 1] != IGNORE_INDEX).tolist()]
        text.append_text(_paint_document(tokenizer, tokens[start:stop].tolist(), learned, shade))
        text.append("\n")
    if size < len(tokens):
        text.append(f"[padding: {len(tokens) - size} tokens]", style=PADDING)
    return text


def _paint_document(tokenizer: Tokenizer, tokens: list[int], learned: list[bool], shade: str) -> Text:
    """Runs of tokens with one style are decoded together, so that characters of several tokens come out whole."""
    controls = {tokenizer.end_of_text, tokenizer.turn_start, tokenizer.turn_end}
    styles = [
        f"{LEARNED if is_learned else READ}{' reverse' if token in controls else ''} {shade}"
        for token, is_learned in zip(tokens, learned, strict=True)
    ]
    text = Text()
    for style, run in groupby(zip(styles, tokens, strict=True), key=itemgetter(0)):
        text.append(tokenizer.decode([token for _, token in run], keep_control=True), style=style)
    return text


def _padding(tokens: Array, targets: Array, document_ids: Array, padding: int) -> int:
    """Tokens at the end of a row that are only padding: a last document of nothing but that token, never learned."""
    last = document_ids == document_ids[-1]
    is_padding = (tokens[last] == padding).all() and (targets[last] == IGNORE_INDEX).all()
    return int(last.sum()) if is_padding else 0


def _legend(intra_document_masking: bool) -> Text:
    attention = "attention stays within each document" if intra_document_masking else "attention runs across documents"
    return Text.assemble(
        ("[1]", "bold cyan"),
        " documents of the row, ",
        ("learned", LEARNED),
        ", ",
        ("only read", READ),
        ", ",
        ("control token", "reverse"),
        f"; {attention}",
    )
