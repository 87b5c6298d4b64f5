"""What is known of a run at a glance, from what its stages left: for lists and comparisons of runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keylm.common.units import percent
from keylm.evaluate.results import last_finetuned_stage, load_measurement
from keylm.model.transformer import weight_shapes
from keylm.recipe import MIXTURE_STAGES
from keylm.run import Run
from keylm.stages import num_steps, stages_of, training_stages
from keylm.train.metrics import read_metrics


@dataclass(frozen=True)
class RunFacts:
    """A run at a glance."""

    name: str
    """Its folder's name."""
    state: str
    """`done`, the stage it is at and how far that is, or `new`."""
    parameters: int
    tokens: dict[str, int]
    """Tokens of pretraining and SFT that are trained on so far, by stage."""
    bits_per_byte: dict[str, float]
    """Of the pretrained weights, by source."""
    answers: dict[str, float]
    """Bits per byte of held-out SFT answers under the last weights, by source."""
    instruction_accuracy: float | None
    """Of the last weights; None if it was not measured."""
    seconds: float
    """Time of all stages."""


def facts_of(run: Run) -> RunFacts:
    """Collect the facts of a run; of one that is at work, as far as it is.

    Raises:
        UserError: A file of the run is damaged.
    """
    stages = [stage.name for stage in stages_of(run)]
    finished = [name for name in stages if run.is_finished(name)]
    answers = load_measurement(run, "sft_answers").get("bits_per_byte", {})
    scores = load_measurement(run, "instruction_following")
    tuned = last_finetuned_stage(scores)
    return RunFacts(
        name=run.folder.resolve().name,
        state=_state(run, stages),
        parameters=sum(math.prod(shape) for shape in weight_shapes(run.recipe.model).values()),
        tokens={stage: tokens for stage in MIXTURE_STAGES if (tokens := _latest(run, stage, "tokens"))},
        bits_per_byte={
            name: row["pretrain"] for name, row in load_measurement(run, "bits_per_byte").items() if "pretrain" in row
        },
        answers={
            name: next(row[stage] for stage in reversed(training_stages(run)) if stage in row)
            for name, row in answers.items()
        },
        instruction_accuracy=scores[tuned]["instruction_accuracy"] if tuned else None,
        seconds=sum(run.metadata(name).get("seconds", 0.0) for name in finished),
    )


def _state(run: Run, stages: list[str]) -> str:
    """`done`, or the latest stage that was begun, with the share of its steps if it trains."""
    begun = [name for name in stages if (run.stage(name) / "begun.json").exists()]
    if not begun:
        return "new"
    latest = begun[-1]
    if run.is_finished(latest):
        return "done" if latest == stages[-1] else f"{latest} done"
    if latest not in training_stages(run):
        return latest
    return f"{latest} {percent(_latest(run, latest, 'step') / num_steps(run, latest), 0)}"


def _latest(run: Run, stage: str, key: str) -> int:
    """A number of the latest row of a training stage's metrics; 0 if there is none."""
    rows = read_metrics(run.stage(stage) / "metrics.jsonl")
    return int(rows[-1][key]) if rows else 0
