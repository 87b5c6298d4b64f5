"""Which process this is among those that `torchrun` started. A process that was started alone is the first of one.

Light on purpose: torch is imported only where there is someone to wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from keylm.common.errors import KeyLMError

_PATIENCE = timedelta(days=30)
"""How long ranks wait for a stage that the first one does alone."""


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Number of processes, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that prints, writes, and does what needs doing once."""
    return rank() == 0


def init_process_group() -> None:
    """Meet the other processes, once; does nothing alone.

    Raises:
        KeyLMError: a rank is gone.
    """
    if world_size() == 1:
        return
    import torch.distributed as dist

    if dist.is_initialized():
        return
    with translate_dist_errors():
        store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun's store outlives a restart (pytorch/pytorch#135712): addresses of the dead must not be found again.
        store = dist.PrefixStore(f"attempt-{_attempt()}", store)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=store, rank=number, world_size=size, timeout=_PATIENCE)


def barrier() -> None:
    """Wait until every rank is here, for as long as it takes.

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
    """Turn what torch raises when a rank is dead or silent into one sentence."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not _is_about_contact(error):
            raise
        reason = str(error).splitlines()[0]
        raise KeyLMError(
            f"rank {rank()} lost contact with another rank, whose own message says why ({reason}): "
            f"the last checkpoint is whole, and the same command goes on from there"
        ) from error


def _attempt() -> str:
    """How often torchrun has restarted its ranks. On several machines each counts for itself, so there it says nothing:
    `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` gives every attempt a store of its own."""
    is_one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if is_one_machine else "any"


def _is_about_contact(error: RuntimeError) -> bool:
    """Gloo's failures are plain RuntimeErrors that name its source files; NCCL's have a class."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
