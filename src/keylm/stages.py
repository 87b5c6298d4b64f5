"""The line of stages: what each is called, what it says of itself, and how it is run once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from keylm import ranks
from keylm.errors import UserError
from keylm.run import Run
from keylm.screen import console


@dataclass(frozen=True)
class Stage:
    """One stage: `module:function` is imported when it is needed, for it may bring torch along."""

    name: str
    title: str
    function: str
    shared: bool = False
    """Whether several ranks work on it together. Of the others the first rank does all, and the rest wait."""

    def load(self) -> Callable[[Run], dict[str, Any]]:
        """The function that does the work."""
        module, _, name = self.function.partition(":")
        function: Callable[[Run], dict[str, Any]] = getattr(import_module(module), name)
        return function


LINE = (
    Stage("tokenizer", "learn the vocabulary", "keylm.data.vocabulary:build"),
    Stage("prepare", "turn text into tokens", "keylm.data.prepare:build"),
    Stage("pretrain", "learn from text", "keylm.train:pretrain", shared=True),
    Stage("sft", "learn to answer", "keylm.train:sft", shared=True),
    Stage("dpo", "prefer what follows", "keylm.train.dpo:build"),
    Stage("grpo", "learn from its own answers", "keylm.train.grpo:build"),
    Stage("eval", "measure", "keylm.evaluate:build"),
    Stage("export", "release", "keylm.export:build"),
)


def run_all(run: Run) -> None:
    """Run what is missing, in order, then write the results and the report."""
    for stage in _line(run):
        run_stage(run, stage)
    if ranks.is_first():
        report(run)


def report(run: Run) -> None:
    """Write `results.json` and `report.html` from what the stages left."""
    from keylm import summary
    from keylm.evaluate import report as reports
    from keylm.evaluate import results

    found = results.build(run)
    reports.build(run)
    console.print(f"[green]✓[/] {'report':<10} {run.folder / 'report.html'}")
    summary.show(found)


def run_until(run: Run, name: str) -> None:
    """Run the stage `name`. In an imported run it is for the stage itself to say what it misses.

    Raises:
        UserError: a stage before it is not finished, or the recipe leaves it out.
    """
    if name not in run.stages:
        raise UserError(f"the recipe of {run.folder} has no `{name}`: add the section, docs/{name}.md says how")
    *before, wanted = _line(run)[: run.stages.index(name) + 1]
    for stage in before:
        if not run.is_done(stage.name) and not run.origin("tokenizer"):
            raise UserError(
                f"`{name}` needs `{stage.name}` first: run `keylm {stage.name} {run.folder}`, "
                f"or `keylm run {run.folder}` for all that is missing"
            )
    run_stage(run, wanted)


def _line(run: Run) -> list[Stage]:
    return [stage for stage in LINE if stage.name in run.stages]


def run_stage(run: Run, stage: Stage) -> None:
    """Run one stage unless it is done; keep its facts, the seconds it took and its peak memory in bytes."""
    if stage.shared or ranks.is_first():
        _run_here(run, stage)
    ranks.wait()


def _run_here(run: Run, stage: Stage) -> None:
    if run.is_done(stage.name):
        console.print(f"[green]✓[/] {stage.name:<10} already done in {run.stage(stage.name)}")
        return
    from keylm import machine

    console.print(f"[bold]{stage.name}[/]: {stage.title}")
    if ranks.is_first():
        run.begin(stage.name)
    machine.reset_peak_memory()
    start = time.monotonic()
    facts = stage.load()(run)
    seconds = time.monotonic() - start
    peak = machine.peak_memory()
    if ranks.is_first():
        run.finish(stage.name, {**facts, "seconds": round(seconds, 2), "peak_memory_bytes": peak})
    console.print(f"[green]✓[/] {stage.name:<10} {_duration(seconds)}, peak memory {peak / 2**30:.2f} GiB")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
