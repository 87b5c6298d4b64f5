"""Work on many cores or machines by datatrove's executors: one pipeline, the same on this machine, on Ray, on Slurm."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from datatrove.executor.local import LocalPipelineExecutor
from loguru import logger

from keylm.common.console import progress
from keylm.common.errors import KeyLMError, UserError
from keylm.recipe.prepare import PrepareConfig

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep

_SECONDS_BETWEEN_LOOKS = 0.5


class _Local(LocalPipelineExecutor):  # type: ignore[misc]
    """Processes of this machine; the screen stays ours, for datatrove prints every task's pipeline and statistics."""

    def _run_for_rank(self, *place: int) -> object:
        logger.disable("datatrove")
        return super()._run_for_rank(*place)


def run_tasks(
    settings: PrepareConfig, pipeline: Sequence[PipelineStep], num_tasks: int, folder: Path, title: str
) -> None:
    """Run `num_tasks` tasks of a datatrove pipeline; those that an earlier call finished are skipped.

    `folder` keeps the logs and which tasks are done; on a cluster it must lie where all machines see it.

    Raises:
        UserError: the executor cannot be used here, or (Slurm) the jobs are queued and not done yet.
        KeyLMError: a task failed; what the others finished is kept.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    executor = _executor(settings, list(pipeline), num_tasks, str(folder.resolve()))
    with progress(title, num_tasks, "tasks") as bar, ThreadPoolExecutor(max_workers=1) as thread:
        job, done = thread.submit(executor.run), 0
        while wait([job], timeout=_SECONDS_BETWEEN_LOOKS).not_done:
            before, done = done, num_tasks - len(executor.get_incomplete_ranks())
            bar.advance(done - before)
        _raise_failure(job.exception(), folder)
    missing = executor.get_incomplete_ranks()
    if missing and settings.executor == "slurm":
        raise UserError(
            f"{len(missing)} of {num_tasks} tasks are queued on Slurm: run the same command when they are done"
        )
    if missing:
        raise KeyLMError(f"{len(missing)} of {num_tasks} tasks failed; {folder}/logs says why, what is done is kept")


def _executor(settings: PrepareConfig, pipeline: list[PipelineStep], num_tasks: int, folder: str) -> PipelineExecutor:
    match settings.executor:
        case "local":
            logger.disable("datatrove")
            return _Local(pipeline, num_tasks, settings.workers, folder)
        case "ray":
            from datatrove.executor.ray import RayPipelineExecutor

            _connect_to_ray()
            return RayPipelineExecutor(pipeline, num_tasks, settings.workers, logging_dir=folder)
        case "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor

            if not {"time", "partition"} <= set(settings.slurm):
                raise UserError("prepare.slurm must name a `partition` and a `time` for prepare.executor: slurm")
            quietly = {"mail_type": "NONE", **settings.slurm}
            return SlurmPipelineExecutor(pipeline, num_tasks, workers=settings.workers, logging_dir=folder, **quietly)


def _connect_to_ray() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, without its dashboard and statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("prepare.executor: ray needs Ray: install it with `pip install 'keylm[ray]'`") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def _raise_failure(error: BaseException | None, folder: Path) -> None:
    if error is None or isinstance(error, KeyLMError):
        if error:
            raise error
        return
    reason = " ".join(str(error).split()) or type(error).__name__
    raise KeyLMError(f"a task failed ({reason}); {folder}/logs has the details, what is done is kept") from error
