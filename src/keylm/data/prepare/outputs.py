"""What the `prepare` stage left in a run, and where: token stores, and the reasons why sources are missing."""

from __future__ import annotations

from pathlib import Path

from keylm.data.prepare.token_store import TokenStore, read_manifest
from keylm.recipe.sources import SourceConfig
from keylm.run import Run


def source_folder(run: Run, stage: str, name: str) -> Path:
    """Folder of a source of `pretrain` or `sft`: its manifest, and a store for each split."""
    return run.stage("prepare") / stage / name


def work_folder(run: Run) -> Path:
    """Where the tasks of `prepare` work; deleted once everything is merged."""
    return run.stage("prepare") / "tasks"


def available_sources(run: Run, stage: str) -> list[SourceConfig]:
    """The sources of `pretrain` or `sft` that were available to the `prepare` stage."""
    missing = missing_sources(run, stage)
    return [source for source in run.recipe.sources_of(stage) if source.name not in missing]


def missing_sources(run: Run, stage: str) -> dict[str, str]:
    """Sources that were not available and that the recipe allows to be missing: the reason by name."""
    reasons = {}
    for source in run.recipe.sources_of(stage):
        # Without a manifest the source is not prepared yet, which is another matter than missing.
        manifest = read_manifest(source_folder(run, stage, source.name))
        if "missing" in manifest:
            reasons[source.name] = manifest["missing"]
    return reasons


def open_store(run: Run, stage: str, name: str, split: str) -> TokenStore:
    """The `train` or `validation` split of a source.

    Raises:
        KeyLMError: it is unfinished or damaged.
    """
    return TokenStore(source_folder(run, stage, name) / split)
