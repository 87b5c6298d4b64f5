"""The run: the folder that a recipe fills, stage by stage, and the record of which stages are done."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from keylm.common import ranks
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import cached_sha256, read_json, sha256, write_json, write_text
from keylm.common.folder_lock import lock_folder
from keylm.recipe import MIXTURE_STAGES, Recipe, dump_recipe, load_recipe
from keylm.recipe.fingerprint import changed_fields, name_fields, stage_inputs

_LOGS = {"begun.json", "metrics.jsonl", "tensorboard"}
"""What a stage leaves that is no part of its work: it is written anew when the stage begins again."""


IMPORTED = "imported"
"""The folder of imported weights, which is laid out like a training stage's."""


@dataclass(frozen=True)
class Run:
    """A run folder and its recipe.

    A stage writes only to its own folder, `run.stage(NAME)`. It writes `begun.json` there first, with the settings that
    its output depends on, and `stage.json` last, which marks it as done.
    """

    folder: Path
    recipe: Recipe

    def stage(self, name: str) -> Path:
        """Folder of a stage. It need not exist yet."""
        return self.folder / name

    def weights(self, stage: str) -> Path:
        """Path of the final weights of a training stage: safetensors, float32, transformers' Qwen3 names."""
        return self.stage(stage) / "final" / "model.safetensors"

    def verified_weights(self, stage: str) -> Path:
        """Path of the final weights of a training stage, which are those that the stage wrote.

        Raises:
            UserError: the stage has no weights yet.
            KeyLMError: they were changed or damaged since.
        """
        path = self.weights(stage)
        if not path.exists():
            raise UserError(f"{self.folder} has no trained weights: run `keylm {stage} {self.folder}` first")
        if problem := self._weights_problem(stage):
            raise KeyLMError(
                f"{path} is damaged ({problem}): restore a copy; or delete "
                f"{self.stage(stage)}/stage.json and run `keylm {stage} {self.folder}`, which writes them again from "
                f"the last checkpoint"
            )
        return path

    def _weights_problem(self, stage: str) -> str | None:
        """What is wrong with the final weights of a stage; None if they are those that the stage wrote."""
        path = self.weights(stage)
        expected = (self._read_record(stage, "stage.json") or {}).get("weights_sha256")
        if expected:
            return None if cached_sha256(path) == expected else "its hash is not that of what was written"
        # A run of an earlier version has no hash. That the file was cut off, its header shows.
        try:
            with safe_open(path, "numpy"):
                return None
        except SafetensorError as error:
            return str(error)

    def is_finished(self, stage: str) -> bool:
        """Whether `stage` is finished, with whatever settings; for commands that only read."""
        return self._read_record(stage, "stage.json") is not None and not self.is_superseded(stage)

    def is_done(self, stage: str) -> bool:
        """Whether `stage` is finished, with the settings of this recipe.

        Raises:
            UserError: the stage was made from other settings than this recipe's.
        """
        if changed := self.changed_settings(stage):
            raise UserError(
                f"{self.stage(stage)} is out of date: {name_fields(changed)}; `--remake {stage}` makes it again, and "
                f"what follows from it, and `keylm run --from {self.folder} --run ANOTHER` keeps this run and makes "
                f"another from what still holds"
            )
        return self.is_finished(stage)

    def changed_settings(self, stage: str) -> list[str]:
        """The fields in which the recipe differs from the one that made what is in the folder of `stage`."""
        begun = self._read_record(stage, "begun.json")
        if not begun or "imported" in begun or not self._has_output(stage):
            return []
        # Earlier versions recorded a hash. The recipe that is saved in the run is the one that made it.
        recorded = begun["settings"] if "settings" in begun else stage_inputs(load_recipe(self.folder))[stage]
        return changed_fields(recorded, stage_inputs(self.recipe)[stage])

    def begin(self, stage: str) -> Path:
        """Make the folder of `stage`, record its settings there, and return it; saves the recipe in the run."""
        # Only now: a command that is refused must leave the recipe that made the stages.
        self.save_recipe()
        folder = self.stage(stage)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "begun.json", {"stage": stage, "settings": stage_inputs(self.recipe)[stage]})
        return folder

    def finish(self, stage: str, metadata: dict[str, Any]) -> None:
        """Mark `stage` as done and record its metadata (durations, counts, hashes), and the hash of its weights."""
        weights = self.weights(stage)
        hashes = {"weights_sha256": sha256(weights)} if weights.exists() else {}
        write_json(self.stage(stage) / "stage.json", {"stage": stage, **metadata, **hashes})

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
        """Where a stage was imported from; None if it was run here, or is not done yet.

        That is also so of imported weights on which the recipe trains now.
        """
        return None if self._is_trained_here(stage) else self._import_record(stage)

    @property
    def earlier_trainings(self) -> list[dict[str, Any]]:
        """The pretrainings that this run lengthens (`keylm run --more`), the first one first.

        Each has the name of its `run`, its `tokens` and its time in `seconds`. Empty if this run lengthens none, or if
        the first of them began with imported weights.
        """
        record = self._read_record(IMPORTED, "stage.json") or {}
        earlier: list[dict[str, Any]] = record.get("earlier", [])
        return earlier

    @property
    def base_model(self) -> str | None:
        """Where the weights that training began with were imported from; None if it all began from scratch."""
        return None if self.earlier_trainings else self.imported_from("tokenizer")

    def is_superseded(self, stage: str) -> bool:
        """Whether a stage has imported weights, and the recipe has sources to train them, or those before them, on."""
        return self._is_trained_here(stage) and self._import_record(stage) is not None

    def save_recipe(self) -> None:
        """Save the resolved recipe in the run, as `recipe.yaml`, unless it is there."""
        path, text = self.folder / "recipe.yaml", dump_recipe(self.recipe)
        # Under torchrun every process gets here, and they must not write the same file at once.
        if ranks.is_main_process() and not (path.exists() and path.read_text(encoding="utf-8") == text):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(path, text)

    def lock(self) -> AbstractContextManager[None]:
        """Lock the run folder against other commands that write to it; under torchrun the main process does so.

        Raises:
            UserError: another process has locked it.
        """
        return lock_folder(self.folder) if ranks.is_main_process() else nullcontext()

    def _is_trained_here(self, stage: str) -> bool:
        """Whether the recipe has sources for a stage that trains on some, or for one before it."""
        if stage not in MIXTURE_STAGES:
            return False
        return any(self.recipe.sources_of(name) for name in MIXTURE_STAGES[: MIXTURE_STAGES.index(stage) + 1])

    def _import_record(self, stage: str) -> str | None:
        metadata = self._read_record(stage, "stage.json") or {}
        source: str | None = metadata.get("imported")
        return source

    def _has_output(self, stage: str) -> bool:
        """Whether a stage is finished, or was begun and left something that other settings must not continue."""
        if self.is_finished(stage):
            return True
        # `prepare` has a record for every source, and compares those itself.
        return stage != "prepare" and any(path.name not in _LOGS for path in self._files(stage))

    def _files(self, stage: str) -> list[Path]:
        """The files of a stage, and of its folders; a folder without files is none."""
        children = list(self.stage(stage).iterdir())
        return [path for path in children if path.is_file() or any(inner.is_file() for inner in path.rglob("*"))]

    def _read_record(self, stage: str, file: str) -> dict[str, Any] | None:
        path = self.stage(stage) / file
        try:
            return read_json(path) if path.exists() else None
        except UserError as error:
            # The stage's output is worth more than its record, which it writes again.
            raise UserError(
                f"{path} is damaged: delete this file and run `keylm {stage} {self.folder}`, which goes on with what "
                f"the stage left"
            ) from error


def create(recipe: Recipe, folder: Path | None = None) -> Run:
    """Create the run of `recipe`, or open it if it exists, and save the recipe in it.

    Args:
        recipe: The recipe.
        folder: The run folder; `runs/NAME` by default.
    """
    run = Run(folder or Path("runs") / recipe.name, recipe)
    run.save_recipe()
    return run


def open_run(path: Path, overrides: list[str] | None = None, folder: Path | None = None) -> Run:
    """Open a run, given its folder or a recipe file. Nothing is written before a stage begins.

    Args:
        path: A run folder or a recipe file.
        overrides: Fields of the recipe to change, as `key.subkey=value`.
        folder: The run folder; by default `path` if it is a folder, `runs/NAME` if it is a recipe.

    Raises:
        UserError: `path` is neither a run nor a valid recipe, or an override is wrong.
    """
    recipe = load_recipe(path, overrides)
    return Run(folder or (path if path.is_dir() else Path("runs") / recipe.name), recipe)
