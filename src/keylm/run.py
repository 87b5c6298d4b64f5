"""The run: the folder that a recipe fills, stage by stage, and what is done in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keylm.common import ranks
from keylm.common.errors import UserError
from keylm.common.files import read_json, write_json, write_text
from keylm.recipe import Recipe, dump_recipe, fingerprint, load_recipe
from keylm.recipe.fingerprint import stage_inputs

IMPORTED = "imported"
"""Takes the place of the fingerprint in a stage that was imported, since no recipe made it."""


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

    def weights(self, stage: str) -> Path:
        """The final weights of a training stage: safetensors, float32, transformers' Qwen3 names."""
        return self.stage(stage) / "final" / "model.safetensors"

    def fingerprint(self, stage: str) -> str:
        """Sixteen hex digits that stand for everything in the recipe that shapes the output of `stage`."""
        inputs = stage_inputs(self.recipe)
        names = list(inputs)
        return fingerprint(stage, [inputs[name] for name in names[: names.index(stage) + 1]])

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
        """Make the folder of `stage`, record what it is made from, and return it."""
        folder = self.stage(stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "begun.json", {"stage": stage, "fingerprint": self.fingerprint(stage)})
        return folder

    def finish(self, stage: str, metadata: dict[str, Any]) -> None:
        """Mark `stage` as done, with the metadata worth keeping (seconds, counts, hashes)."""
        write_json(self.stage(stage) / "stage.json", {"stage": stage, **metadata})

    def metadata(self, stage: str) -> dict[str, Any]:
        """What `finish` recorded of a stage.

        Raises:
            UserError: the stage is not finished.
        """
        metadata = self._read(stage, "stage.json")
        if metadata is None:
            raise UserError(f"{self.folder} has no finished `{stage}` stage: run `keylm {stage} {self.folder}` first")
        return metadata

    def imported_from(self, stage: str) -> str | None:
        """Where a stage was imported from; None if it was made here, or is not done yet."""
        metadata = self._read(stage, "stage.json") or {}
        source: str | None = metadata.get("imported")
        return source

    def _read(self, stage: str, file: str) -> dict[str, Any] | None:
        path = self.stage(stage) / file
        return read_json(path) if path.exists() else None


def create(recipe: Recipe, folder: Path | None = None) -> Run:
    """The run of `recipe`, in `folder` (default: `runs/NAME`); the resolved recipe is kept in it as `recipe.yaml`."""
    folder = folder or Path("runs") / recipe.name
    if ranks.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
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
        return create(load_recipe(saved, overrides), folder or path)
    return create(load_recipe(path, overrides), folder)
