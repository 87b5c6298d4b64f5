"""`prepare`: where text is cleaned and tokenized, and in how many processes."""

from __future__ import annotations

from typing import Any, Literal

from keylm.recipe.base import Config, PositiveCount


class PrepareConfig(Config):
    """Where the `prepare` stage runs, and in how many processes."""

    executor: Literal["local", "ray", "slurm"] = "local"
    """datatrove's executor: processes of this machine, a Ray cluster, or Slurm jobs."""
    tasks: PositiveCount = 1
    """Number of tasks that the files of each source are divided into; 1 reads and writes in a single pass. The number
    does not change the token store, except for sources with `max_documents` or `max_bytes`, of which every task takes
    its share."""
    workers: PositiveCount = 1
    """Number of tasks that run at the same time."""
    slurm: dict[str, Any] = {}
    """Settings of `SlurmPipelineExecutor`, such as `{partition: cpu, time: "04:00:00"}`."""
