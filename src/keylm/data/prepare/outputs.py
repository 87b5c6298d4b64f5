"""What the `prepare` stage left in a run: token stores, and the reasons why sources are missing."""

from __future__ import annotations

from keylm.common.files import read_json
from keylm.data.prepare.token_store import TokenStore
from keylm.recipe.sources import SourceConfig
from keylm.run import Run


def available_sources(run: Run, stage: str) -> list[SourceConfig]:
    """The sources of `pretrain` or `sft` that were available to the `prepare` stage."""
    missing = missing_sources(run, stage)
    return [source for source in run.recipe.sources_of(stage) if source.name not in missing]


def missing_sources(run: Run, stage: str) -> dict[str, str]:
    """Sources that were not available and that the recipe allows to be missing: the reason by name."""
    reasons = {}
    for source in run.recipe.sources_of(stage):
        path = run.stage("prepare") / stage / source.name / "manifest.json"
        # Without a manifest the source is not prepared yet, which is another matter than missing.
        manifest = read_json(path) if path.exists() else {}
        if "missing" in manifest:
            reasons[source.name] = manifest["missing"]
    return reasons


def open_store(run: Run, stage: str, name: str, split: str) -> TokenStore:
    """The `train` or `validation` split of a source.

    Raises:
        KeyLMError: it is unfinished or damaged.
    """
    return TokenStore(run.stage("prepare") / stage / name / split)
