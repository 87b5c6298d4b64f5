"""`prepare`: where text is cleaned and tokenized."""

from __future__ import annotations

from typing import Any, Literal

from keylm.recipe.base import Config, PositiveCount


class PrepareConfig(Config):
    """Where the work of the `prepare` stage is done."""

    executor: Literal["local", "ray", "slurm"] = "local"
    """datatrove's executor: processes of this machine, a Ray cluster, or Slurm jobs."""
    tasks: PositiveCount = 1
    """Tasks into which the files of each source are divided; 1 reads and writes in a single pass. The token store is
    the same, except for sources with `max_documents` or `max_bytes`, of which every task takes its share."""
    workers: PositiveCount = 1
    """Tasks that run at the same time."""
    slurm: dict[str, Any] = {}
    """Settings of `SlurmPipelineExecutor`, such as `{partition: cpu, time: "04:00:00"}`."""
