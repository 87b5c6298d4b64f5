"""The run: the folder that a recipe fills, stage by stage, and the record of which stages are done."""

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
"""Stands in `begun.json` for the fingerprint of a stage that was imported, because no recipe made it."""


@dataclass(frozen=True)
class Run:
    """A run folder and its recipe.

    A stage writes only to its own folder, `run.stage(NAME)`. It writes `begun.json` there first, with the fingerprint
    of its settings, and `stage.json` last, which marks it as done.
    """

    folder: Path
    recipe: Recipe

    def stage(self, name: str) -> Path:
        """Folder of a stage. It need not exist yet."""
        return self.folder / name

    def weights(self, stage: str) -> Path:
        """Path of the final weights of a training stage: safetensors, float32, transformers' Qwen3 names."""
        return self.stage(stage) / "final" / "model.safetensors"

    def fingerprint(self, stage: str) -> str:
        """Sixteen hex digits that identify everything in the recipe that the output of `stage` depends on."""
        # A stage reads what the stages before it wrote, so their inputs are its inputs too.
        inputs = stage_inputs(self.recipe)
        names = list(inputs)
        return fingerprint(stage, [inputs[name] for name in names[: names.index(stage) + 1]])

    def is_done(self, stage: str) -> bool:
        """Whether `stage` is finished.

        Raises:
            UserError: the stage was finished or begun with other settings than this recipe's.
        """
        # What was only begun counts too: training would resume from checkpoints that other settings made.
        begun = self._read_record(stage, "begun.json")
        if begun and begun["fingerprint"] not in (self.fingerprint(stage), IMPORTED):
            raise UserError(
                f"{self.stage(stage)} was made from other settings than this recipe's: "
                f"name another run folder with --run, or delete that folder to make it again"
            )
        return self._read_record(stage, "stage.json") is not None

    def begin(self, stage: str) -> Path:
        """Make the folder of `stage`, record the fingerprint of its settings there, and return the folder."""
        folder = self.stage(stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "begun.json", {"stage": stage, "fingerprint": self.fingerprint(stage)})
        return folder

    def finish(self, stage: str, metadata: dict[str, Any]) -> None:
        """Mark `stage` as done and record its metadata (durations, counts, hashes)."""
        write_json(self.stage(stage) / "stage.json", {"stage": stage, **metadata})

    def metadata(self, stage: str) -> dict[str, Any]:
        """The metadata that `finish` recorded for a stage.

        Raises:
            UserError: the stage is not finished.
        """
        metadata = self._read_record(stage, "stage.json")
        if metadata is None:
            raise UserError(f"{self.folder} has no finished `{stage}` stage: run `keylm {stage} {self.folder}` first")
        return metadata

    def imported_from(self, stage: str) -> str | None:
        """Where a stage was imported from; None if it was run here, or is not done yet."""
        metadata = self._read_record(stage, "stage.json") or {}
        source: str | None = metadata.get("imported")
        return source

    def _read_record(self, stage: str, file: str) -> dict[str, Any] | None:
        path = self.stage(stage) / file
        return read_json(path) if path.exists() else None


def create(recipe: Recipe, folder: Path | None = None) -> Run:
    """Create the run of `recipe`, or open it if it exists, and save the resolved recipe in it as `recipe.yaml`.

    Args:
        recipe: The recipe.
        folder: The run folder; `runs/NAME` by default.
    """
    folder = folder or Path("runs") / recipe.name
    # Under torchrun every process gets here, and they must not write the same file at once.
    if ranks.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.yaml", dump_recipe(recipe))
    return Run(folder, recipe)


def open_run(path: Path, overrides: list[str] | None = None, folder: Path | None = None) -> Run:
    """Open a run, given its folder or a recipe file.

    Args:
        path: A run folder or a recipe file.
        overrides: Fields of the recipe to change, as `key.subkey=value`; the changed recipe is saved in the run.
        folder: The run folder; by default `path` if it is a folder, `runs/NAME` if it is a recipe.

    Raises:
        UserError: `path` is neither a run nor a valid recipe, or an override is wrong.
    """
    recipe = load_recipe(path, overrides)
    return create(recipe, folder or (path if path.is_dir() else None))
