"""Reading ahead: a thread makes the batch of the next step while the device computes this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from keylm.data.loading.loader import Batch, Loader


class PrefetchLoader:
    """Makes the same batches as a loader, the next one before it is asked for.

    Args:
        loader: It has no state, so a thread may use it.
        num_steps: Steps of the training; no batch is made beyond them.
    """

    def __init__(self, loader: Loader, num_steps: int) -> None:
        self._loader, self._num_steps = loader, num_steps
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._pending: dict[tuple[int, int, int], Future[Batch]] = {}

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows `rank`, `rank + world_size`, … of a step, counted from 0."""
        # Submitted before the next batch, or else one that nobody expected would wait for that.
        current = self._pending.pop((step, rank, world_size), None) or self._submit(step, rank, world_size)
        self._pending.clear()
        if step + 1 < self._num_steps:
            self._pending[step + 1, rank, world_size] = self._submit(step + 1, rank, world_size)
        return current.result()

    def close(self) -> None:
        """Stop reading ahead."""
        self._executor.shutdown(cancel_futures=True)

    def _submit(self, *arguments: int) -> Future[Batch]:
        return self._executor.submit(self._loader.batch, *arguments)
