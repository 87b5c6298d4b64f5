"""A training batch in colours: which source, which documents, and which tokens are learned from."""

from __future__ import annotations

from rich.text import Text

from keylm.data.batches import IGNORED, Batch
from keylm.errors import UserError
from keylm.run import Run
from keylm.screen import output
from keylm.tokenizer import Tokenizer


def show(run: Run, stage: str, step: int, rows: int) -> None:
    """Print the first `rows` sequences of a step: learned text green, the rest grey, control tokens reversed.

    Raises:
        UserError: `stage` does not train, or the step is beyond its end.
    """
    from keylm import train

    if stage not in ("pretrain", "sft"):
        raise UserError(f"--stage {stage}: only `pretrain` and `sft` have batches")
    training = run.recipe.train if stage == "pretrain" else run.recipe.sft
    if not 0 <= step < training.num_steps:
        raise UserError(f"--step {step}: {stage} has the steps 0 to {training.num_steps - 1:,}")
    run.facts("prepare")
    batch = train.loader(run, stage).batch(step)
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    for row in range(min(rows, len(batch.tokens))):
        address = batch.addresses[row]
        output.rule(f"{stage} step {step}, row {row}: {address.source}, epoch {address.epoch}, block {address.block}")
        output.print(_paint(tokenizer, batch, row))


def _paint(tokenizer: Tokenizer, batch: Batch, row: int) -> Text:
    text = Text()
    controls = {tokenizer.end_of_text, tokenizer.turn_start, tokenizer.turn_end}
    tokens, targets = batch.tokens[row].tolist(), batch.targets[row].tolist()
    learned = [False, *(target != IGNORED for target in targets[:-1])]
    for token, is_learned in zip(tokens, learned, strict=True):
        style = "green" if is_learned else "bright_black"
        shown = tokenizer.decode([token], keep_control=True)
        text.append(shown, style=f"{style} reverse" if token in controls else style)
    return text
