"""`keylm run --more`: train a finished model longer, in a run of its own.

The learning rate of a finished training has fallen to zero, so no checkpoint can simply go on. Training begins again
from the last weights, with a warm-up and a decay, as in continued pretraining (Ibrahim et al. 2024, "Simple and
Scalable Strategies to Continually Pre-train Large Language Models"). That is not the model that one training of the
whole length would have given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from keylm.commands.reuse import take_stage
from keylm.common import ranks
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.files import link_or_copy, write_json
from keylm.recipe.train import PhaseConfig
from keylm.run import IMPORTED, Run
from keylm.stages import STAGES

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def lengthen_training(source: Run, amount: str, folder: Path | None = None) -> Run:
    """Begin a run that goes on to pretrain the weights of another one, on its text; later stages follow anew.

    Args:
        source: The run to lengthen, with its pretraining done. It is only read.
        amount: Tokens, such as `2e6`; or time, such as `90s`, `30m` or `2h`, at the speed of the earlier training.
        folder: The new run; by default the other's folder with `-more` behind its name. One that is begun goes on.

    Raises:
        UserError: `amount` is neither, or pretraining is not done.
    """
    metadata = source.metadata("pretrain")
    weights = source.verified_weights("pretrain")
    tokens = _parse_tokens(amount, metadata.get("tokens", 0) / (metadata.get("training_seconds") or 1))
    training = source.recipe.train
    # The first phases are for a model that knows nothing yet.
    phases = [PhaseConfig(until=1, weights=phase.weights) for phase in training.phases[-1:]]
    recipe = source.recipe.model_copy(
        update={"train": training.model_copy(update={"tokens": tokens, "phases": phases})}
    )
    run = Run(folder or source.folder.with_name(f"{source.folder.name}-more"), recipe)
    if run.folder.resolve() == source.folder.resolve():
        raise UserError("--more trains in another run folder: name one with --run")
    if ranks.is_main_process():
        with run.lock():
            _begin(source, run, weights)
    ranks.barrier()
    console.print(
        f"pretraining goes on for {tokens:,} tokens from the last weights of {source.folder}, with a warm-up and a "
        f"decay of its own; the stages after it follow anew in {run.folder}",
        soft_wrap=True,
    )
    return run


def _begin(source: Run, run: Run, weights: Path) -> None:
    """Give the run the weights, the text and the tokenizer; whatever of these it has already is left as it is."""
    if run.imported_from("tokenizer"):
        return
    run.weights(IMPORTED).parent.mkdir(parents=True, exist_ok=True)
    run.weights(IMPORTED).unlink(missing_ok=True)
    link_or_copy(str(weights), str(run.weights(IMPORTED)))
    run.finish(IMPORTED, {"imported": str(source.folder), "earlier": _earlier_trainings(source)})
    other = replace(source, recipe=run.recipe)
    for stage in STAGES[:2]:
        if not run.stage(stage.name).exists():
            take_stage(other, run, stage)
    # Last, because its mark is what lets training begin from the other weights.
    write_json(run.stage("tokenizer") / "stage.json", {**run.metadata("tokenizer"), "imported": str(source.folder)})


def _earlier_trainings(source: Run) -> list[dict[str, Any]]:
    """What the card tells of the pretraining behind the weights of `source` (`Run.earlier_trainings`)."""
    if source.base_model:
        return []
    metadata = source.metadata("pretrain")
    own = {
        "run": source.folder.resolve().name,
        "tokens": metadata["tokens"],
        "seconds": metadata["training_seconds"],
    }
    return [*source.earlier_trainings, own]


def _parse_tokens(amount: str, tokens_per_second: float) -> int:
    if duration := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", amount):
        tokens = float(duration[1]) * _UNIT_SECONDS[duration[2]] * tokens_per_second
    else:
        try:
            tokens = float(amount)
        except ValueError:
            tokens = 0
    if not 1 <= tokens < 1e15:
        raise UserError(f"--more {amount}: write tokens, such as 2e6, or time, such as 90s, 30m or 2h")
    return int(tokens)
