"""The table of stages, and how they are run.

A stage's entry point is given as a string and imported when the stage runs. So this module can sit below the packages
that do the work, and they look up names and labels here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.markup import escape

from keylm.common import hardware, ranks
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.files import discard_folder
from keylm.common.interrupts import stop_on_interrupt
from keylm.common.units import duration, gib
from keylm.recipe import MIXTURE_STAGES
from keylm.recipe.base import Config
from keylm.recipe.dpo import DpoConfig
from keylm.recipe.fingerprint import name_fields
from keylm.recipe.grpo import GrpoConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    """Its command, and its folder in the run."""
    title: str
    """What it does, in a few words."""
    entry_point: str
    """`module:function`; the function takes a `Run`, does the work and returns the metadata to record."""
    section: str
    """The section of the recipe with its settings."""
    trains: bool = False
    """Whether it writes weights, to `RUN/NAME/final`."""
    optional: bool = False
    """Whether it is skipped if the recipe lacks its section."""
    distributed: bool = False
    """Whether all ranks take part. Otherwise the main process does the work and the others wait."""
    label: str = ""
    """Name of its weights in tables of scores, such as `after SFT`."""
    card_text: str = ""
    """Its sentence on the model card; `config` stands for its section of the recipe, `tokens` for those it read."""
    review: str = ""
    """`module:function` that takes a run in which the stage was begun, before a command writes anything: it refuses
    what cannot go on, and says what is out of date."""
    plan_remake: str = ""
    """`module:function` that takes a run and returns the folders to delete and the later stages to make again where the
    stage is to be made again. By default its own folder, and all later stages."""
    is_cheap: bool = False
    """Whether it is made again without being asked where the recipe changed, since it takes little beside training."""

    def config(self, run: Run) -> Config | None:
        """The stage's section of the recipe; None if the recipe skips the stage."""
        section: Config | None = getattr(run.recipe, self.section)
        return section

    def load_entry_point(self) -> Callable[[Run], dict[str, Any]]:
        """Import the entry point."""
        return _load(self.entry_point)

    def is_done(self, run: Run) -> bool:
        """Whether the stage is finished with the settings of the recipe.

        Raises:
            UserError: it was made from other settings, and is not cheap.
        """
        if self.is_cheap and run.changed_settings(self.name):
            return False
        return run.is_done(self.name)

    def outdated_parts(self, run: Run) -> tuple[list[Path], list[str]]:
        """The folders to delete, and the later stages to make again, where this stage is to be made again."""
        if self.plan_remake:
            folders, later = _load(self.plan_remake)(run)
            return folders, later
        names = [stage.name for stage in STAGES]
        return [run.stage(self.name)], names[names.index(self.name) + 1 :]


def _load(name: str) -> Callable[[Run], Any]:
    """Import the function that is named as `module:function`."""
    module, _, function_name = name.partition(":")
    function: Callable[[Run], Any] = getattr(import_module(module), function_name)
    return function


# In the order in which they run. A new stage needs an entry in `stage_inputs` of `recipe/fingerprint.py` too.
STAGES = (
    Stage("tokenizer", "train the tokenizer", "keylm.data.prepare.tokenizer_stage:run_tokenizer", "tokenizer"),
    Stage(
        "prepare",
        "clean and tokenize the text",
        "keylm.data.prepare.stage:run_prepare",
        "prepare",
        review="keylm.data.prepare.freshness:review_sources",
        plan_remake="keylm.data.prepare.freshness:plan_remake",
    ),
    Stage(
        "pretrain",
        "pretrain on the mixture of text",
        "keylm.train.stages:run_pretrain",
        "train",
        trains=True,
        distributed=True,
        label="before SFT",
        card_text="Pretraining read {tokens:,} tokens, with {config.optimizer.type}.",
    ),
    Stage(
        "sft",
        "supervised fine-tuning on conversations",
        "keylm.train.stages:run_sft",
        "sft",
        trains=True,
        distributed=True,
        label="after SFT",
        card_text="Supervised fine-tuning read {tokens:,} tokens, with the loss on the assistant's tokens only.",
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
    # Before the export, whose model card shows the scores.
    Stage("eval", "evaluate", "keylm.evaluate.stage:run_eval", "eval", is_cheap=True),
    Stage("export", "export and verify the release", "keylm.export.stage:run_export", "export", is_cheap=True),
)

TRAINING_STAGES = tuple(stage for stage in STAGES if stage.trains)


def stages_of(run: Run) -> list[Stage]:
    """The stages of the run's recipe, in order: without those that lack their section, or sources to train on."""
    return [stage for stage in STAGES if not _is_skipped(run, stage)]


def _is_skipped(run: Run, stage: Stage) -> bool:
    if stage.name in MIXTURE_STAGES:
        return not run.recipe.sources_of(stage.name) and not run.imported_from(stage.name)
    return stage.optional and not stage.config(run)


def training_stages(run: Run) -> list[str]:
    """Names of the stages of the recipe that write weights, in order. The weights of the last one are released."""
    return [stage.name for stage in stages_of(run) if stage.trains]


def completed_training_stages(run: Run) -> list[str]:
    """Names of the stages whose final weights exist, in order."""
    return [name for name in training_stages(run) if run.weights(name).exists()]


def num_steps(run: Run, stage: str) -> int:
    """Number of optimizer steps of a training stage."""
    config = next(row for row in TRAINING_STAGES if row.name == stage).config(run)
    assert isinstance(config, TrainConfig | DpoConfig | GrpoConfig)
    return config.num_steps


def run_all(run: Run, remake: str | None = None) -> None:
    """Run the stages that are not done yet, in order.

    Args:
        run: The run.
        remake: A stage to make again, with those that follow from it.

    Raises:
        UserError: a stage was made from other settings, there is no stage `remake`, or another command is at work in
            the run.
    """
    names = [stage.name for stage in stages_of(run)]
    if remake and remake not in names:
        raise UserError(f"--remake {remake}: the stages of {run.folder} are {', '.join(names)}")
    _review(run, remake)
    with run.lock():
        _discard(run, remake)
        for stage in stages_of(run):
            run_stage(run, stage)


def run_until(run: Run, name: str, remake: str | None = None) -> None:
    """Run the stage `name`, for which the stages before it must be done.

    Args:
        run: The run.
        name: The stage.
        remake: `name`, to make it again and to delete what follows from it.

    Raises:
        UserError: a stage before it is not done, the recipe skips it, a stage was made from other settings, or another
            command is at work in the run.
    """
    stages = stages_of(run)
    names = [stage.name for stage in stages]
    if name not in names:
        if name in MIXTURE_STAGES:
            raise UserError(
                f"the recipe of {run.folder} has no sources for `{name}`: `keylm docs sources` has their types"
            )
        raise UserError(f"the recipe of {run.folder} has no `{name}`: add the section, `keylm docs {name}` says how")
    if remake not in (None, name):
        raise UserError(
            f"--remake {remake}: `keylm {name}` makes only `{name}`, use `keylm run {run.folder} --remake {remake}`"
        )
    _review(run, remake)
    position = names.index(name)
    for earlier in stages[:position]:
        # An imported run lacks some stages for good, such as `prepare`. There the stage itself reports what it misses.
        if not earlier.is_done(run) and not run.imported_from("tokenizer"):
            raise UserError(
                f"`{name}` needs `{earlier.name}` first: run `keylm {earlier.name}` with the same arguments, "
                f"or `keylm run` for everything that is missing"
            )
    with run.lock():
        _discard(run, remake)
        run_stage(run, stages[position])


def _review(run: Run, remake: str | None) -> None:
    """Check what the run has of each stage, later ones too, before a command writes to the run or saves its recipe.

    Raises:
        UserError: a stage was made from other settings than the recipe's, and is not to be made again.
    """
    if remake and (source := run.imported_from(remake)):
        raise UserError(f"--remake {remake}: it was imported from {source}; import it again, into another run folder")
    for stage in stages_of(run):
        if stage.name == remake:
            return
        stage.is_done(run)
        if stage.review and run.stage(stage.name).exists():
            _load(stage.review)(run)


def _discard(run: Run, remake: str | None) -> None:
    """Delete the stage to make again, and those that follow from it. With several ranks, every rank calls this."""
    if not remake:
        return
    if ranks.is_main_process():
        folders, outdated = next(stage for stage in STAGES if stage.name == remake).outdated_parts(run)
        # The latest first, and the mark of the stage before its parts: if this is stopped, what is left is consistent.
        for name in reversed(outdated):
            if not run.imported_from(name):
                discard_folder(run.stage(name))
        (run.stage(remake) / "stage.json").unlink(missing_ok=True)
        for folder in folders:
            discard_folder(folder)
    ranks.barrier()


def _discard_superseded(run: Run) -> None:
    """Delete the imported weights of stages that are now to be trained; `imported` keeps what training starts from."""
    for stage in reversed(TRAINING_STAGES):
        if run.is_superseded(stage.name):
            discard_folder(run.stage(stage.name))


def run_stage(run: Run, stage: Stage) -> None:
    """Run one stage unless it is done, and record its metadata: its own, time in seconds, peak memory, and machine.

    With several ranks, every rank calls this.
    """
    if stage.distributed or ranks.is_main_process():
        _run_on_this_rank(run, stage)
    ranks.barrier()


def _run_on_this_rank(run: Run, stage: Stage) -> None:
    if stage.is_done(run):
        console.print(f"[green]✓[/] {stage.name:<10} already done in {run.stage(stage.name)}")
        return
    console.print(f"[bold]{stage.name}[/]: {stage.title}")
    if ranks.is_main_process():
        if changed := run.changed_settings(stage.name):
            console.print(f"  made again: {escape(name_fields(changed))}", soft_wrap=True)
            discard_folder(run.stage(stage.name))
        if stage.trains:
            _discard_superseded(run)
        run.begin(stage.name)
    # `keylm run` runs all stages in one process: without this, each would report the largest peak so far.
    hardware.reset_peak_memory()
    start = time.monotonic()
    with stop_on_interrupt(
        f"stopped in `{stage.name}`, what is done is kept: run the same command to resume",
        # Training ends in its own time, after it has saved the last step.
        may_be_killed=not stage.trains,
    ):
        metadata = stage.load_entry_point()(run)
    seconds, peak_bytes = time.monotonic() - start, hardware.peak_memory_bytes()
    if ranks.is_main_process():
        costs = {"seconds": round(seconds, 2), "peak_memory_bytes": peak_bytes}
        run.finish(stage.name, {**metadata, **costs, "machine": hardware.describe_hardware()})
    console.print(f"[green]✓[/] {stage.name:<10} {duration(seconds)}, peak memory {gib(peak_bytes)}")
