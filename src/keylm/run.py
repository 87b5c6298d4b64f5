"""The run: the folder that a recipe fills, stage by stage, and what is done in it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keylm import ranks
from keylm import recipe as recipes
from keylm.errors import UserError
from keylm.recipe import Recipe

STAGES = ("tokenizer", "prepare", "pretrain", "sft", "dpo", "grpo", "eval", "export")
"""The whole line."""

OPTIONAL = ("dpo", "grpo")
"""A recipe without a section for these leaves them out."""

TRAININGS = ("pretrain", "sft", "dpo", "grpo")
"""The stages that leave weights, in order."""

_SHARE = {"weight", "category", "max_epochs"}
"""What decides how much of a source is read in training, and nothing before it."""

IMPORTED = "imported"
"""Stands where a fingerprint would, in a stage that came from elsewhere and was made from no recipe."""


@dataclass(frozen=True)
class Run:
    """A run folder and its recipe.

    Every stage writes only to `run.stage(NAME)`, and marks itself done by writing `stage.json` there, last.
    """

    folder: Path
    recipe: Recipe

    def stage(self, name: str) -> Path:
        """Folder of a stage (it may not exist yet)."""
        return self.folder / name

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the recipe asks for, in order."""
        return tuple(stage for stage in STAGES if stage not in OPTIONAL or getattr(self.recipe, stage))

    @property
    def trainings(self) -> list[str]:
        """The stages of the recipe that leave weights, in order."""
        return [stage for stage in TRAININGS if stage in self.stages]

    @property
    def last_training(self) -> str:
        """The stage whose weights are the run's: what is released, and what answers."""
        return self.trainings[-1]

    @property
    def trained(self) -> list[str]:
        """The stages whose final weights are there, in order."""
        return [stage for stage in self.trainings if self.weights(stage).exists()]

    def weights(self, stage: str) -> Path:
        """The final weights of one of `TRAININGS`: safetensors, float32, transformers' Qwen3 names."""
        return self.stage(stage) / "final" / "model.safetensors"

    def fingerprint(self, stage: str) -> str:
        """Sixteen hex digits that stand for everything in the recipe that shapes the output of `stage`."""
        parts = _shaping_parts(self.recipe)
        return recipes.fingerprint(stage, [parts[each] for each in self.stages[: self.stages.index(stage) + 1]])

    def is_done(self, stage: str) -> bool:
        """Whether `stage` is finished.

        Raises:
            UserError: it was made, or begun, from another recipe.
        """
        begun = self._read(stage, "begun.json")
        if begun and begun["fingerprint"] not in (self.fingerprint(stage), IMPORTED):
            raise UserError(
                f"{self.stage(stage)} was made from other settings than this recipe's: "
                f"name another run folder with --run, or delete that folder to make it again"
            )
        return self._read(stage, "stage.json") is not None

    def begin(self, stage: str) -> Path:
        """Make the folder of `stage`, note what it is made from, and return it."""
        folder = self.stage(stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "begun.json", {"stage": stage, "fingerprint": self.fingerprint(stage)})
        return folder

    def finish(self, stage: str, facts: dict[str, Any]) -> None:
        """Mark `stage` as done, with the facts worth keeping (seconds, counts, hashes)."""
        write_json(self.stage(stage) / "stage.json", {"stage": stage, **facts})

    def facts(self, stage: str) -> dict[str, Any]:
        """What `finish` kept of a stage.

        Raises:
            UserError: the stage is not finished.
        """
        facts = self._read(stage, "stage.json")
        if facts is None:
            raise UserError(f"{self.folder} has no finished `{stage}` stage: run `keylm {stage} {self.folder}` first")
        return facts

    def origin(self, stage: str) -> str | None:
        """Where a stage was imported from; None where it was made here, or not yet."""
        facts = self._read(stage, "stage.json") or {}
        origin: str | None = facts.get("imported")
        return origin

    def _read(self, stage: str, file: str) -> dict[str, Any] | None:
        path = self.stage(stage) / file
        return read_json(path) if path.exists() else None


def create(recipe: Recipe, folder: Path | None = None) -> Run:
    """The run of `recipe`, in `folder` (default: `runs/NAME`); the resolved recipe is kept in it as `recipe.yaml`."""
    folder = folder or Path("runs") / recipe.name
    if ranks.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.yaml", recipes.dump(recipe))
    return Run(folder, recipe)


def open_run(path: Path, overrides: list[str] | None = None, folder: Path | None = None) -> Run:
    """A run, from its folder or from a recipe file.

    Raises:
        UserError: `path` is neither.
    """
    if path.is_dir():
        saved = path / "recipe.yaml"
        if not saved.exists():
            raise UserError(f"{path} is not a run: it has no recipe.yaml")
        return create(recipes.load(saved, overrides), folder or path)
    return create(recipes.load(path, overrides), folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run the stage again") from error
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: whoever reads it sees the old text or the new, never half of one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def replace_folder(partial: Path, final: Path) -> None:
    """Move a finished folder to its place, durably: its files reach the disk before its name changes."""
    for path in partial.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shaping_parts(recipe: Recipe) -> dict[str, Any]:
    """What shapes each stage; a stage depends on its own part and on those of all before it."""
    sources = [_text_of(source) for source in (*recipe.data.sources, *recipe.sft.sources)]
    reading = recipe.data.model_dump(mode="json", exclude={"sources"})
    habits = {
        "checkpoint_minutes",
        "keep_checkpoints",
        "keep_every",
        "max_skipped_steps",
        "parallel",
        "timeout_seconds",
    }
    return {
        "tokenizer": [recipe.seed, recipe.model.vocab_size, recipe.tokenizer, sources, reading],
        # Where a source is read up to a limit, every task takes its share of it.
        "prepare": [recipe.prepare.tasks],
        "pretrain": [
            recipe.model,
            recipe.train.model_dump(mode="json", exclude=habits),
            _shares_of(recipe.data.sources),
        ],
        "sft": [recipe.sft.model_dump(mode="json", exclude=habits)],
        **{
            stage: [tuning and tuning.model_dump(mode="json", exclude=habits)]
            for stage, tuning in (("dpo", recipe.dpo), ("grpo", recipe.grpo))
        },
        "eval": [recipe.eval.model_dump(mode="json", exclude={"data"})],
        "export": [recipe.name, recipe.title, recipe.export],
    }


def _text_of(source: Any) -> dict[str, Any]:
    values: dict[str, Any] = source.model_dump(mode="json", exclude={"license", "missing", *_SHARE})
    return values


def _shares_of(sources: list[Any]) -> dict[str, Any]:
    return {source.name: source.model_dump(mode="json", include=_SHARE) for source in sources}
