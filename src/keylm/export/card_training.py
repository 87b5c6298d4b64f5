"""The model card's account of the training: what each stage read, as recorded, and what it cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from keylm.common.units import gib
from keylm.data.sources.registry import source_type
from keylm.export.markdown import markdown_table
from keylm.recipe.sources import SourceConfig
from keylm.recipe.train import PhaseConfig, TrainConfig, requested_shares
from keylm.run import Run
from keylm.stages import Stage, stages_of

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def training_section(run: Run) -> str:
    """A paragraph per training stage, with a table of sources where the stage has a mixture, and the costs."""
    paragraphs = []
    if run.base_model:
        paragraphs.append(
            f"The weights were imported from `{published_name(run.base_model)}`; see there for their training.\n"
        )
    paragraphs += [
        f"Pretraining went on from the weights of the run `{earlier['run']}`, which had read {earlier['tokens']:,} "
        f"tokens of the same sources in {earlier['seconds'] / 60:.1f} minutes.\n"
        for earlier in run.earlier_trainings
    ]
    # The text of each stage is in the table of stages, so that a new one cannot be forgotten here.
    for stage in stages_trained_here(run):
        config, metadata = stage.config(run), _metadata(run, stage.name)
        tokens = metadata.get("tokens") or getattr(config, "tokens", 0)
        paragraphs.append(stage.card_text.format(config=config, tokens=tokens) + "\n")
        if isinstance(config, TrainConfig):
            paragraphs.append(_source_table(run.recipe.sources_of(stage.name), metadata.get("mixture", {})))
            paragraphs.append(_phases(run.recipe.sources_of(stage.name), config))
    paragraphs += [_costs(run), "The complete recipe is in `recipe.yaml`, beside this card or in the folder above it."]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def stages_trained_here(run: Run) -> list[Stage]:
    """The training stages of the recipe, in order, without those whose weights were imported."""
    return [stage for stage in stages_of(run) if stage.trains and not run.imported_from(stage.name)]


def mixture_sources(run: Run) -> list[SourceConfig]:
    """The sources of all stages that were trained here; DPO and GRPO have none of their own."""
    stages = [stage for stage in stages_trained_here(run) if isinstance(stage.config(run), TrainConfig)]
    return [source for stage in stages for source in run.recipe.sources_of(stage.name)]


def published_name(imported_from: str) -> str:
    """The name of an imported model: that on the hub, or that of a folder, whose path is nobody else's business."""
    if _HUB_NAME.fullmatch(imported_from) and not Path(imported_from).exists():
        return imported_from
    return Path(imported_from).resolve().name


def _metadata(run: Run, stage: str) -> dict[str, Any]:
    return run.metadata(stage) if run.is_finished(stage) else {}


def _source_table(sources: list[SourceConfig], mixture: dict[str, dict[str, float]]) -> str:
    """The sources with the tokens that were read of each, where they are recorded, or else their weights."""
    rows, total = [], sum(source.weight for source in sources)
    for source in sources:
        drawn = mixture.get(source.name, {})
        share = f"{drawn['realized']:.1%}" if drawn else f"{source.weight / total:.1%}"
        tokens = [f"{drawn['tokens']:,}" if drawn else ""] if mixture else []
        rows.append([source_type(source).label(source), source.category, share, *tokens, _license(source)])
    return markdown_table(["source", "category", "share", *(["tokens"] if mixture else []), "license"], *rows)


def _phases(sources: list[SourceConfig], config: TrainConfig) -> str:
    """The shares that the recipe asks for in each phase; empty if there is only one."""
    rows = []
    for phase in config.phases:
        shares = requested_shares(sources, [PhaseConfig(until=1, weights=phase.weights)])
        named = [f"{name} {share:.1%}" for name, share in shares.items() if share]
        rows.append([f"{phase.until:.0%}", ", ".join(named)])
    return "By phase, until this part of the training:\n\n" + markdown_table(["until", "shares"], *rows) if rows else ""


def _costs(run: Run) -> str:
    """Time, memory and processor of every stage that recorded its machine."""
    rows = []
    for stage in stages_of(run):
        metadata = _metadata(run, stage.name)
        if machine := metadata.get("machine"):
            # Of training, the time in steps over all restarts; of the others, that of the last call.
            minutes = metadata.get("training_seconds", metadata["seconds"]) / 60
            memory = gib(metadata["peak_memory_bytes"])
            rows.append([stage.name, f"{minutes:.1f} min", memory, f"{machine['processor']}, {machine['cores']} cores"])
    return markdown_table(["stage", "time", "peak memory", "machine"], *rows) if rows else ""


def _license(source: Any) -> str:
    """The license of the text that a source is made from, however many sources stand in between."""
    origin = source_type(source).origin(source)
    if origin.license or origin is source:
        return origin.license or "not stated"
    return _license(origin)
