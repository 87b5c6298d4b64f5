"""The ranks that `torchrun` started, and which of them this process is. Without torchrun there is one rank, number 0.

Torch is imported only if there is more than one rank, so that every command can import this module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from keylm.common.errors import KeyLMError

_BARRIER_TIMEOUT = timedelta(days=30)
"""How long ranks wait for a stage that the main process runs alone. Preparing a large corpus takes days."""


def rank() -> int:
    """Number of this process, from 0, over all machines."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Number of processes, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that prints, writes files, and does what is done once."""
    return rank() == 0


def init_process_group() -> None:
    """Connect to the other ranks, unless that is done already or there are none.

    Raises:
        KeyLMError: a rank is gone.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        return
    # torchrun's store outlives a restart of the ranks (pytorch/pytorch#135712). A prefix of each attempt's own keeps
    # the addresses of the dead ranks out. On several machines the counters differ, so there the prefix is constant,
    # and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives every attempt a store of its own.
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_one_machine else "any"
    with translate_dist_errors():
        store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=number, world_size=size, timeout=_BARRIER_TIMEOUT)


def barrier() -> None:
    """Wait until every rank has reached this point.

    Raises:
        KeyLMError: a rank is gone.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    init_process_group()
    with translate_dist_errors():
        dist.barrier()


@contextmanager
def translate_dist_errors() -> Iterator[None]:
    """Translate what torch raises when another rank is dead or silent.

    Raises:
        KeyLMError: contact with another rank was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1:
            raise
        import torch.distributed as dist

        # NCCL's failures have a class of their own; gloo's are plain RuntimeErrors that name its source files.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        reason = str(error).splitlines()[0]
        raise KeyLMError(
            f"rank {rank()} lost contact with another rank, whose own message says why ({reason}): "
            f"the last checkpoint is intact, and the same command resumes from it"
        ) from error
