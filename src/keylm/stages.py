"""The one table of stages, and how they are run.

Nothing else lists the stages. A stage's entry point is named by a string and imported when the stage runs, so this
module sits below the packages that do the work, which look up names and labels here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from keylm.common import ranks
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.recipe.base import Config
from keylm.recipe.dpo import DpoConfig
from keylm.recipe.grpo import GrpoConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    """Its command and its folder in the run."""
    title: str
    """What it does, in a few words."""
    entry_point: str
    """`module:function` that does the work on a `Run` and returns the metadata worth keeping."""
    section: str
    """The section of the recipe with its settings."""
    trains: bool = False
    """Whether it leaves weights, in `RUN/NAME/final`."""
    optional: bool = False
    """Whether a recipe without its section skips it."""
    distributed: bool = False
    """Whether several ranks work on it together. Otherwise the main process does all, and the others wait."""
    label: str = ""
    """What the scores of its weights are called."""
    card_text: str = ""
    """How the model card tells it; `config` is its section of the recipe."""

    def config(self, run: Run) -> Config | None:
        """The stage's section of the recipe; None where the recipe skips the stage."""
        section: Config | None = getattr(run.recipe, self.section)
        return section

    def load(self) -> Callable[[Run], dict[str, Any]]:
        """Import the entry point."""
        module, _, name = self.entry_point.partition(":")
        function: Callable[[Run], dict[str, Any]] = getattr(import_module(module), name)
        return function


STAGES = (
    Stage("tokenizer", "train the tokenizer", "keylm.data.prepare.tokenizer_stage:run_tokenizer", "tokenizer"),
    Stage("prepare", "clean and tokenize the text", "keylm.data.prepare.stage:run_prepare", "prepare"),
    Stage(
        "pretrain",
        "pretrain on the mixture of text",
        "keylm.train.stages:run_pretrain",
        "train",
        trains=True,
        distributed=True,
        label="before SFT",
        card_text="Pretraining used {config.tokens:,} tokens, with {config.optimizer.type}. Mixture, by share of "
        "tokens:",
    ),
    Stage(
        "sft",
        "supervised fine-tuning on conversations",
        "keylm.train.stages:run_sft",
        "sft",
        trains=True,
        distributed=True,
        label="after SFT",
        card_text="Supervised fine-tuning used {config.tokens:,} tokens, with the loss on the assistant's tokens only. "
        "Mixture:",
    ),
    Stage(
        "dpo",
        "DPO on verified preference pairs",
        "keylm.posttrain.dpo:run_dpo",
        "dpo",
        trains=True,
        optional=True,
        label="after DPO",
        card_text="Preference tuning (DPO) used {config.num_pairs:,} pairs of answers; the rejected answer violates "
        "one constraint of its request.",
    ),
    Stage(
        "grpo",
        "GRPO with rule-based rewards",
        "keylm.posttrain.grpo:run_grpo",
        "grpo",
        trains=True,
        optional=True,
        label="after GRPO",
        card_text="Reinforcement learning (GRPO) used {config.num_answers:,} answers of the model's own, rewarded by "
        "whether they follow the request and are about its topic.",
    ),
    Stage("eval", "evaluate", "keylm.evaluate.stage:run_eval", "eval"),
    Stage("export", "export and verify the release", "keylm.export.stage:run_export", "export"),
)

TRAINING_STAGES = tuple(stage for stage in STAGES if stage.trains)


def stages_of(run: Run) -> list[Stage]:
    """The stages that the run's recipe asks for, in order."""
    return [stage for stage in STAGES if not stage.optional or stage.config(run)]


def training_stages(run: Run) -> list[str]:
    """Names of the stages of the recipe that leave weights, in order. The weights of the last one are released."""
    return [stage.name for stage in stages_of(run) if stage.trains]


def completed_training_stages(run: Run) -> list[str]:
    """Names of the stages whose final weights exist, in order."""
    return [name for name in training_stages(run) if run.weights(name).exists()]


def num_steps(run: Run, stage: str) -> int:
    """Optimizer steps of a training stage of the recipe."""
    config = next(row for row in TRAINING_STAGES if row.name == stage).config(run)
    assert isinstance(config, TrainConfig | DpoConfig | GrpoConfig)
    return config.num_steps


def run_all(run: Run) -> None:
    """Run the stages that are not done yet, in order."""
    for stage in stages_of(run):
        run_stage(run, stage)


def run_until(run: Run, name: str) -> None:
    """Run the stage `name`. In an imported run it is up to the stage itself to say what it lacks.

    Raises:
        UserError: a stage before it is not finished, or the recipe skips it.
    """
    wanted = {stage.name: stage for stage in stages_of(run)}
    if name not in wanted:
        raise UserError(f"the recipe of {run.folder} has no `{name}`: add the section, docs/{name}.md says how")
    for before in wanted:
        if before == name:
            break
        if not run.is_done(before) and not run.imported_from("tokenizer"):
            raise UserError(
                f"`{name}` needs `{before}` first: run `keylm {before} {run.folder}`, "
                f"or `keylm run {run.folder}` for everything that is missing"
            )
    run_stage(run, wanted[name])


def run_stage(run: Run, stage: Stage) -> None:
    """Run one stage unless it is done; record its metadata, its duration in seconds and its peak memory in bytes."""
    if stage.distributed or ranks.is_main_process():
        _run_here(run, stage)
    ranks.barrier()


def _run_here(run: Run, stage: Stage) -> None:
    if run.is_done(stage.name):
        console.print(f"[green]✓[/] {stage.name:<10} already done in {run.stage(stage.name)}")
        return
    from keylm.common import hardware

    console.print(f"[bold]{stage.name}[/]: {stage.title}")
    if ranks.is_main_process():
        run.begin(stage.name)
    hardware.reset_peak_memory()
    start = time.monotonic()
    metadata = stage.load()(run)
    seconds, peak = time.monotonic() - start, hardware.peak_memory()
    if ranks.is_main_process():
        run.finish(stage.name, {**metadata, "seconds": round(seconds, 2), "peak_memory_bytes": peak})
    minutes, rest = divmod(round(seconds), 60)
    duration = f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
    console.print(f"[green]✓[/] {stage.name:<10} {duration}, peak memory {peak / 2**30:.2f} GiB")
