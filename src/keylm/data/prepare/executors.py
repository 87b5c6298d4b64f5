"""Running a pipeline of tasks with datatrove's executors: on this machine, on Ray or on Slurm."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from datatrove.executor.local import LocalPipelineExecutor
from loguru import logger

from keylm.common.console import progress as progress_bar
from keylm.common.errors import KeyLMError, UserError
from keylm.recipe.prepare import PrepareConfig

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep

_POLL_SECONDS = 0.5


class _QuietLocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """Processes of this machine, without datatrove's log of every task's pipeline and statistics."""

    def _run_for_rank(self, *args: int) -> object:
        # In the process of the task: what the main process disables does not reach one that is started afresh.
        logger.disable("datatrove")
        if threading.current_thread() is threading.main_thread():
            # A terminal sends Ctrl-C to workers too, and each would print a traceback. The main process ends them.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return super()._run_for_rank(*args)


def run_tasks(
    settings: PrepareConfig, pipeline: Sequence[PipelineStep], num_tasks: int, folder: Path, title: str
) -> None:
    """Run `num_tasks` tasks of a datatrove pipeline; those that an earlier call finished are skipped.

    Args:
        settings: which executor, and how many workers.
        pipeline: datatrove's steps; task `rank` runs them with `rank` and `world_size=num_tasks`.
        num_tasks: number of tasks.
        folder: for the logs and the record of finished tasks; on a cluster all machines must see it.
        title: shown next to the progress bar.

    Raises:
        UserError: the executor cannot be used here, or (Slurm) the jobs are queued and not done yet.
        KeyLMError: a task failed; what the others finished is kept.
    """
    # Bars of several processes would overwrite one another, and the one below.
    os.environ.setdefault("TQDM_DISABLE", "1")
    executor = _make_executor(settings, list(pipeline), num_tasks, str(folder.resolve()))
    with progress_bar(title, num_tasks, "tasks") as bar, ThreadPoolExecutor(max_workers=1) as thread:
        job, done = thread.submit(executor.run), 0
        # The executor blocks and reports nothing: count the marks that finished tasks leave in its folder.
        while wait([job], timeout=_POLL_SECONDS).not_done:
            before, done = done, num_tasks - len(executor.get_incomplete_ranks())
            bar.advance(done - before)
        error = job.exception()
    if isinstance(error, KeyLMError):
        raise error
    if error is not None:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise KeyLMError(f"a task failed ({reason}); {folder}/logs has the details, what is done is kept") from error
    # Slurm's executor returns once the jobs are queued; the others return when all tasks have ended.
    missing = executor.get_incomplete_ranks()
    if missing and settings.executor == "slurm":
        raise UserError(
            f"{len(missing)} of {num_tasks} tasks are queued on Slurm: run the same command when they are done"
        )
    if missing:
        raise KeyLMError(f"{len(missing)} of {num_tasks} tasks failed; {folder}/logs says why, what is done is kept")


def _make_executor(
    settings: PrepareConfig, pipeline: list[PipelineStep], num_tasks: int, folder: str
) -> PipelineExecutor:
    match settings.executor:
        case "local":
            logger.disable("datatrove")
            return _QuietLocalExecutor(pipeline, num_tasks, settings.workers, folder)
        case "ray":
            from datatrove.executor.ray import RayPipelineExecutor

            _connect_to_ray()
            return RayPipelineExecutor(pipeline, num_tasks, settings.workers, logging_dir=folder)
        case "slurm":
            from datatrove.executor.slurm import SlurmPipelineExecutor

            if not {"time", "partition"} <= set(settings.slurm):
                raise UserError("prepare.slurm must name a `partition` and a `time` for prepare.executor: slurm")
            options = {"mail_type": "NONE", **settings.slurm}
            return SlurmPipelineExecutor(pipeline, num_tasks, workers=settings.workers, logging_dir=folder, **options)


def _connect_to_ray() -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine, without its dashboard and usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("prepare.executor: ray needs Ray: install it with `pip install 'keylm[ray]'`") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
