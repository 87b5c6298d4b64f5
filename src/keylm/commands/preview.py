"""`keylm preview`: a training batch in color. It shows the source, the documents, and the tokens with a loss."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

import numpy as np
from rich.console import Console
from rich.text import Text

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.recipe import MIXTURE_STAGES
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

LOSS, NO_LOSS, PADDING = "green", "bright_black", "dim"
"""Styles of tokens with a loss, of those without, and of the note about padding."""
_SHADES = ("", "on grey11")
"""Backgrounds of adjacent documents."""


def show_preview(run: Run, stage: str, step: int, rows: int, console: Console = output) -> None:
    """Print the first `rows` sequences of the batch of a step.

    Documents are numbered within their sequence and shaded alternately. Tokens with a loss are green, the others gray,
    and control tokens are reversed.

    Raises:
        UserError: `stage` has no batches, `step` is out of range, or the run is not prepared.
    """
    from keylm.train.stages import make_loader

    if stage not in MIXTURE_STAGES:
        raise UserError(f"--stage {stage}: only `pretrain` and `sft` have batches")
    training = run.recipe.training(stage)
    if not 0 <= step < training.num_steps:
        raise UserError(f"--step {step}: {stage} has the steps 0 to {training.num_steps - 1:,}")
    # Fails with the command to run if the tokens are not there.
    run.metadata("prepare")
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    loader = make_loader(run, stage)
    batch = loader.batch(step)
    document_ids = loader.document_ids(batch.sequence_refs)

    attention = "within each document" if training.intra_document_masking else "across documents"
    console.print(
        Text.assemble(
            ("[1]", "bold cyan"),
            " documents of the sequence, ",
            ("loss", LOSS),
            ", ",
            ("no loss", NO_LOSS),
            ", ",
            ("control token", "reverse"),
            f"; attention {attention}",
        )
    )
    for row in range(min(rows, len(batch.tokens))):
        ref = batch.sequence_refs[row]
        part = f", part {ref.part}" if batch.sequence_refs.num_parts > 1 else ""
        origin = f"{ref.source}, epoch {ref.epoch}, block {ref.block}{part}"
        console.print(Text(f"\n{stage} step {step}, row {row}: {origin}", style="bold"))
        console.print(paint_sequence(tokenizer, batch.tokens[row], batch.targets[row], document_ids[row]))


def paint_sequence(tokenizer: Tokenizer, tokens: Array, targets: Array, document_ids: Array) -> Text:
    """Decode one sequence, with a style for each token.

    Args:
        tokenizer: The tokenizer of the run.
        tokens: Token ids (time,).
        targets: Target ids (time,), `IGNORE_INDEX` where there is no loss.
        document_ids: Number of the document that each token belongs to (time,), rising.
    """
    # Padding is a last document of nothing but end-of-text tokens without a loss.
    is_last = document_ids == document_ids[-1]
    is_padded = (tokens[is_last] == tokenizer.end_of_text).all() and (targets[is_last] == IGNORE_INDEX).all()
    num_padding = int(is_last.sum()) if is_padded else 0
    size = len(tokens) - num_padding

    text = Text()
    starts = np.flatnonzero(np.diff(document_ids[:size], prepend=-1)).tolist()
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], size], strict=True)):
        shade = _SHADES[number % 2]
        text.append(f"[{number + 1}]", style=f"bold cyan {shade}")
        # The loss on a token stands at the position before it, whose target it is: for the first token of a document
        # that position is outside of the document.
        loss_mask = [False, *(targets[start : stop - 1] != IGNORE_INDEX).tolist()]
        text.append_text(_paint_document(tokenizer, tokens[start:stop].tolist(), loss_mask, shade))
        text.append("\n")
    if num_padding:
        text.append(f"[padding: {num_padding} tokens]", style=PADDING)
    return text


def _paint_document(tokenizer: Tokenizer, tokens: list[int], loss_mask: list[bool], shade: str) -> Text:
    control_tokens = {tokenizer.end_of_text, tokenizer.turn_start, tokenizer.turn_end}
    styles = [
        f"{LOSS if has_loss else NO_LOSS}{' reverse' if token in control_tokens else ''} {shade}"
        for token, has_loss in zip(tokens, loss_mask, strict=True)
    ]
    text = Text()
    # Runs of one style are decoded at once: a character may be several tokens.
    for style, run in groupby(zip(styles, tokens, strict=True), key=itemgetter(0)):
        text.append(tokenizer.decode([token for _, token in run], keep_control=True), style=style)
    return text
