"""Whether what is prepared is up to date: the settings and files each source was made from, and what changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylm.common.console import console
from keylm.common.errors import KeyLMError, MissingSourceError, UserError, name_some
from keylm.common.files import discard_folder, read_json, sha256, write_json
from keylm.data.prepare.outputs import source_folder, work_folder
from keylm.data.prepare.token_store import TokenStore, read_manifest
from keylm.data.sources.files import find_files
from keylm.data.sources.registry import source_type
from keylm.recipe import MIXTURE_STAGES
from keylm.recipe.fingerprint import Settings, changed_fields, name_fields, source_inputs
from keylm.recipe.sources import BaseSourceConfig, FilesConfig, SourceConfig
from keylm.run import Run
from keylm.stages import STAGES

_MAX_NAMED_FILES = 3


def describe_files(source: BaseSourceConfig) -> dict[str, dict[str, Any]]:
    """Size in bytes, modification time in ns, and SHA-256 of the local files that a source is read from, by path.

    Raises:
        MissingSourceError: there are none.
    """
    described = {}
    for path in _source_files(source):
        status = path.stat()
        described[str(path)] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256(path)}
    return described


def review_sources(run: Run) -> None:
    """Say which files changed since they were prepared.

    Raises:
        UserError: tokens that the stage has not finished yet were made from other settings.
    """
    for stage in MIXTURE_STAGES:
        for source in run.recipe.sources_of(stage):
            changed = _changed_settings(run, stage, source)
            if changed and _has_tokens(run, stage, source):
                raise UserError(
                    f"{_folder(run, stage, source)} is out of date: {name_fields(changed)}; prepare it again with "
                    f"`keylm prepare {run.folder} --remake prepare`, which keeps the sources that did not change, or "
                    f"name another run folder with --run"
                )
            if files := _changed_files(run, stage, source):
                console.print(
                    f"[yellow]![/] the text of `{source.name}` changed since it was prepared ({files}): the prepared "
                    f"text is used; `keylm run {run.folder} --remake prepare` takes in the new one",
                    soft_wrap=True,
                )


def begin_sources(run: Run) -> None:
    """Record the settings of each source; one that left no tokens under other settings is begun anew."""
    for stage in MIXTURE_STAGES:
        for source in run.recipe.sources_of(stage):
            if _changed_settings(run, stage, source):
                discard_folder(_folder(run, stage, source))
                discard_folder(_unit_folder(run, stage, source))
            _folder(run, stage, source).mkdir(parents=True, exist_ok=True)
            settings = source_inputs(run.recipe, stage, source.name)
            write_json(_folder(run, stage, source) / "begun.json", {"settings": settings})


def plan_remake(run: Run) -> tuple[list[Path], list[str]]:
    """What has to be made again: folders of the `prepare` stage, and the later stages that read what changes.

    Sources that are whole and up to date are kept, and with them the stages that were made from them. If all are,
    everything is made again.
    """
    folder, later = run.stage("prepare"), [stage.name for stage in STAGES[2:]]
    changed = {stage: _changed_sources(run, stage) for stage in MIXTURE_STAGES}
    damaged = [
        _folder(run, stage, source)
        for stage in MIXTURE_STAGES
        for source in run.recipe.sources_of(stage)
        if not _is_whole(_folder(run, stage, source))
    ]
    if not damaged and not any(changed.values()):
        return [folder], later
    # A damaged source is made again to the same bytes, so nothing follows from it.
    outdated = [number for number, name in enumerate(later) if changed.get(name) or run.changed_settings(name)]
    folders = {*damaged, *(path for paths in changed.values() for path in paths), work_folder(run)}
    return sorted(folders), later[min(outdated, default=len(later)) :]


def _changed_sources(run: Run, stage: str) -> list[Path]:
    """Folders of the sources of a stage that were made from other settings or files, and of those no longer in it."""
    sources = run.recipe.sources_of(stage)
    # Earlier versions kept no record for each source: then all of them may be concerned.
    is_changed = bool(run.changed_settings("prepare"))
    folders = []
    for source in sources:
        folder = _folder(run, stage, source)
        unknown = is_changed and not (folder / "begun.json").exists()
        if unknown or (_is_recorded(folder) and _changes(run, stage, source)):
            folders.append(folder)
    if folders:
        # Documents are compared with those of all sources before them, and near duplicates with those of all.
        position = [_folder(run, stage, source) for source in sources].index(folders[0])
        first = 0 if run.recipe.data.clean.near_duplicates else position
        folders = [_folder(run, stage, source) for source in sources[first:]]
    names = {source.name for source in sources}
    present = (run.stage("prepare") / stage).glob("*")
    return [*folders, *(path for path in present if path.name not in names and not path.name.startswith("."))]


def _changes(run: Run, stage: str, source: SourceConfig) -> bool:
    return bool(_changed_settings(run, stage, source) or _changed_files(run, stage, source))


def _changed_settings(run: Run, stage: str, source: SourceConfig) -> list[str]:
    recorded = _read_settings(_folder(run, stage, source))
    return [] if recorded is None else changed_fields(recorded, source_inputs(run.recipe, stage, source.name))


def _changed_files(run: Run, stage: str, source: SourceConfig) -> str:
    """Which of the files of a prepared source changed, came or went; empty if none did."""
    manifest = read_manifest(_folder(run, stage, source))
    try:
        files = {str(path): path for path in _source_files(source)}
    except MissingSourceError:
        # What is prepared does not need them any more.
        return ""
    if "missing" in manifest and files:
        return "it was left out, and is there now"
    recorded = manifest.get("files")
    if recorded is None:
        return ""
    changes = {
        "changed": [name for name in files if name in recorded and not _is_unchanged(files[name], recorded[name])],
        "new": [name for name in files if name not in recorded],
        "gone": [name for name in recorded if name not in files],
    }
    return "; ".join(f"{kind}: {name_some(names, _MAX_NAMED_FILES)}" for kind, names in changes.items() if names)


def _is_unchanged(path: Path, recorded: dict[str, Any]) -> bool:
    status = path.stat()
    if status.st_size != recorded["size"]:
        return False
    # A copy of the same text has another time, so only then is it read.
    return bool(status.st_mtime_ns == recorded["mtime_ns"] or sha256(path) == recorded["sha256"])


def _source_files(source: BaseSourceConfig) -> list[Path]:
    """The local files that a source is read from, at whatever remove; none if it comes from elsewhere."""
    origin = source_type(source).origin(source)
    if origin is not source:
        return _source_files(origin)
    return find_files(source) if isinstance(source, FilesConfig) else []


def _is_whole(folder: Path) -> bool:
    """Whether a source is prepared (or missing) and undamaged."""
    try:
        for store in folder.glob("*/manifest.json"):
            TokenStore(store.parent)
    except KeyLMError:
        return False
    return _is_recorded(folder) and bool(read_manifest(folder))


def _is_recorded(folder: Path) -> bool:
    """Whether what a source was made from can be read, as far as it is there."""
    try:
        read_manifest(folder)
        _read_settings(folder)
    except KeyLMError:
        return False
    return True


def _read_settings(folder: Path) -> Settings | None:
    """The settings that a source was made from; None if an earlier version made it, or nothing yet."""
    path = folder / "begun.json"
    try:
        return read_json(path)["settings"] if path.exists() else None
    except UserError as error:
        raise KeyLMError(f"{path} is damaged: run `keylm prepare` with `--remake prepare`") from error


def _has_tokens(run: Run, stage: str, source: SourceConfig) -> bool:
    folders = _folder(run, stage, source), _unit_folder(run, stage, source)
    return any(True for folder in folders for _ in folder.glob("**/*.npy"))


def _folder(run: Run, stage: str, source: SourceConfig) -> Path:
    return source_folder(run, stage, source.name)


def _unit_folder(run: Run, stage: str, source: SourceConfig) -> Path:
    return work_folder(run) / stage / source.name
