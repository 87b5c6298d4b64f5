"""What the `prepare` stage left in a run: stores of sources, and the reasons why some are not there."""

from __future__ import annotations

from keylm.common.files import read_json
from keylm.data.prepare.token_store import TokenStore
from keylm.recipe.sources import SourceConfig
from keylm.run import Run


def available_sources(run: Run, stage: str) -> list[SourceConfig]:
    """The sources of `pretrain` or `sft` that could be had."""
    gone = missing_sources(run, stage)
    return [source for source in run.recipe.sources_of(stage) if source.name not in gone]


def missing_sources(run: Run, stage: str) -> dict[str, str]:
    """Why a source of the stage is not there, by the names of those that the recipe allows to be missing, and are."""
    manifests = {source.name: _read_manifest(run, stage, source.name) for source in run.recipe.sources_of(stage)}
    return {name: manifest["missing"] for name, manifest in manifests.items() if "missing" in manifest}


def open_store(run: Run, stage: str, name: str, side: str) -> TokenStore:
    """The `train` or `validation` side of a source.

    Raises:
        KeyLMError: it is unfinished or damaged.
    """
    return TokenStore(run.stage("prepare") / stage / name / side)


def _read_manifest(run: Run, stage: str, name: str) -> dict[str, str]:
    path = run.stage("prepare") / stage / name / "manifest.json"
    return read_json(path) if path.exists() else {}
