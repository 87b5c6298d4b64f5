"""The loop: one for pretraining and SFT. What differs between them, the data and the first weights, is given to it."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from keylm.common.arrays import IGNORE_INDEX
from keylm.common.console import console
from keylm.common.errors import KeyLMError, UserError
from keylm.common.hardware import compute_dtype, keep_freed_memory
from keylm.common.ranks import barrier, translate_dist_errors
from keylm.data.loading.loader import Batch, Loader
from keylm.model.device import peak_memory_bytes
from keylm.model.transformer import KeyLM
from keylm.recipe.train import TrainConfig
from keylm.train.checkpoint import AsyncCheckpointer, Checkpoint, latest_step, load_checkpoint, save_weights
from keylm.train.distributed import (
    DistContext,
    distribute_like,
    full_cpu_state_dict,
    full_tensor,
    no_sync_context,
    parallelize,
)
from keylm.train.lr_schedule import lr_factor
from keylm.train.metrics import Metrics, NullMetrics
from keylm.train.optimizer import Optimizer
from keylm.train.progress import ProgressDisplay
from keylm.train.signals import StopRequest, TrainingStoppedError, catch_stop_signals
from keylm.train.validation import Validation


@dataclass
class Trainer:
    """A training run in a folder: `checkpoints/`, `metrics.jsonl` and, at the end, `final/model.safetensors`.

    Every rank has one; the first alone writes.
    """

    folder: Path
    model: KeyLM
    training: TrainConfig
    loader: Loader
    data: str
    """Fingerprint of everything the batches come from."""
    validation: Validation
    world: DistContext
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    """Steps without an update, because the loss was not a number or the gradient exploded."""
    objective: nn.Module = field(init=False)
    optimizer: Optimizer = field(init=False)
    saver: AsyncCheckpointer = field(init=False)
    _reread: set[str] = field(default_factory=set)
    """Sources that were read to their end."""

    def __post_init__(self) -> None:
        keep_freed_memory()
        sequences = self.training.batch_tokens // self.training.sequence_length
        if sequences < self.world.size:
            raise UserError(
                f"{self.folder.name}: a step has {sequences} sequences, too few for {self.world.size} "
                f"ranks: start fewer, or raise batch_tokens"
            )
        self.model.compute_dtype = compute_dtype(self.training.compute_dtype)
        self.objective = parallelize(self.model, self.training.parallel, self.world)
        self.optimizer = Optimizer(self.model, self.training.optimizer, self.training.batch_tokens, self.world)
        folder, keep = self.folder / "checkpoints", self.training.keep_last
        self.saver = AsyncCheckpointer(folder, keep, self.training.permanent_every)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the model's weights as they are, to the end.

        Raises:
            TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
            KeyLMError: too many steps were skipped, a checkpoint is damaged or cannot be written, or another rank is
                gone.
        """
        with translate_dist_errors(), catch_stop_signals() as stop:
            self._resume()
            self._train(stop)
            weights = full_cpu_state_dict(self.model.state_dict(), self.world)
            if self.world.rank == 0:
                self.saver.wait()
                save_weights(self.folder / "final", weights)
        barrier()

    def _train(self, stop: StopRequest) -> None:
        is_first = self.world.rank == 0
        metrics = Metrics(self.folder / "metrics.jsonl", self.step) if is_first else NullMetrics()
        live = ProgressDisplay(self.folder.name, self.model.config, self.training, self.step, self.world)
        with closing(metrics), live:
            if self.step and self._validates():
                self._validate(metrics)
            while self.step < self.training.num_steps:
                self._one_step(metrics, live, stop)
                self._save_if_due(metrics)

    def _resume(self) -> None:
        """Go on from the checkpoint that the first rank finds whole."""
        folder = self.saver.folder
        [step] = self.world.sum(latest_step(folder) if self.world.rank == 0 else 0)
        self._saved_step, self._saved_at = int(step), time.monotonic()
        if not step:
            return
        found = load_checkpoint(folder, int(step), self.data)
        parameters = dict(self.model.named_parameters())
        self.model.load_state_dict(
            {name: distribute_like(tensor, parameters[name]) for name, tensor in found.weights.items()}
        )
        self.optimizer.load_state(found.optimizer)
        self.step, self.seconds, self.skipped = found.step, found.seconds, found.skipped
        console.print(f"  goes on from step {self.step:,} of {self.training.num_steps:,}")

    def _one_step(self, metrics: Metrics | NullMetrics, live: ProgressDisplay, stop: StopRequest) -> None:
        start = time.perf_counter()
        batch = self.loader.batch(self.step, self.world.rank, self.world.size)
        self._note_ends(batch)
        loss = self._gradient(batch, stop)
        norm = self._clip()
        problem = self._problem(loss, norm)
        if problem is None:
            self.optimizer.step(lr_factor(self.step, self.training))
        else:
            self.optimizer.drop_gradients()
        took = time.perf_counter() - start
        self.step, self.seconds = self.step + 1, self.seconds + took
        counted = {"step": self.step, "tokens": self.step * self.training.batch_tokens}
        if problem is None:
            metrics.write(counted | self._measures(loss, norm, took, live))
        else:
            self._note_skip(counted, problem, batch, metrics)
        live.advance(loss, took)

    def _measures(self, loss: float, norm: float, seconds: float, live: ProgressDisplay) -> dict[str, Any]:
        tokens_per_second = self.training.batch_tokens / seconds
        return {
            "loss": round(loss, 5),
            "learning_rate": self.optimizer.learning_rate,
            "gradient_norm": round(norm, 5),
            "tokens_per_second": round(tokens_per_second, 1),
            "mfu": round(live.mfu(tokens_per_second), 4),
            "memory_bytes": peak_memory_bytes(self.world.device),
            "seconds": round(self.seconds, 3),
        }

    def _gradient(self, batch: Batch, stop: StopRequest) -> float:
        """Accumulate the gradient of the global batch's mean loss over its targets; return that loss in nats.

        A step can take minutes, and a notice is short: asked to stop, it is given up, and done again another time.
        """
        num_targets, num_rows = self.world.sum((batch.targets != IGNORE_INDEX).sum(), len(batch.tokens))
        masks = [] if batch.document_ids is None else [batch.document_ids]
        arrays = _fill([batch.tokens, batch.targets, *masks], math.ceil(num_rows / self.world.size))
        rows = self.training.micro_batch_tokens // batch.tokens.shape[1]
        starts = range(0, len(arrays[0]), rows)
        total = 0.0
        for first in starts:
            self._stop_if_asked(stop)
            with no_sync_context(self.objective, is_last=first == starts[-1]):
                total += self._part(arrays, slice(first, first + rows), self.world.size / num_targets)
        [summed] = self.world.sum(total)
        return summed / num_targets

    def _part(self, arrays: list[np.ndarray], part: slice, scale: float) -> float:
        """Forward and backward over some rows; the gradient is scaled, for ranks average theirs, the loss is a sum."""
        loss: Tensor = self.objective(*(torch.from_numpy(array[part]).to(self.world.device) for array in arrays))
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _clip(self) -> float:
        """Scale the gradient down to its largest norm; return the norm it had."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.training.max_grad_norm)
        return full_tensor(norm).item()

    def _problem(self, loss: float, norm: float) -> str | None:
        """Why this gradient must not be used, if so: no clock and no history, so that a resumed run skips it too."""
        if not (math.isfinite(loss) and math.isfinite(norm)) or norm > self.training.skip_grad_norm:
            return f"loss {loss:.5g}, gradient norm {norm:.5g}"
        return None

    def _note_ends(self, batch: Batch) -> None:
        """Say when a source has been read to its end, and begins anew."""
        again = batch.sequence_refs.sources[batch.sequence_refs.epochs > 0]
        for source in sorted({batch.sequence_refs.names[index] for index in again} - self._reread):
            console.print(f"  step {self.step:,}: source {source} has ended, and is read again in another order")
            self._reread.add(source)

    def _note_skip(self, counted: dict[str, int], problem: str, batch: Batch, metrics: Metrics | NullMetrics) -> None:
        """Count a skipped step, say where its batch is from, and stop if there were too many."""
        self.skipped += 1
        place = f"{problem}; the batch begins at {batch.sequence_refs[0]}"
        metrics.write(counted | {"skipped": self.skipped, "reason": problem, "batch": str(batch.sequence_refs[0])})
        console.print(f"  step {self.step - 1:,} is skipped ({self.skipped} so far): {place}")
        if self.skipped > self.training.max_skipped_steps:
            raise KeyLMError(
                f"step {self.step - 1} of {self.folder.name}: {place}. {self.skipped} steps had to be skipped: lower "
                f"the learning rate or look at that batch, and run again; the last checkpoint is whole"
            )

    def _save_if_due(self, metrics: Metrics | NullMetrics) -> None:
        self.saver.check()
        minutes = (time.monotonic() - self._saved_at) / 60
        [is_late] = self.world.max(minutes >= self.training.checkpoint_minutes)
        every = self.training.permanent_every
        validates = self._validates()
        if not (is_late or validates or (every and self.step % every == 0)):
            return
        self._save()
        if validates:
            self.saver.wait()
            self._validate(metrics)

    def _save(self) -> None:
        """Copy everything in memory; the first rank's copy is then written while training goes on."""
        if self.step == self._saved_step:
            return
        weights = full_cpu_state_dict(self.model.state_dict(), self.world)
        optimizer = full_cpu_state_dict(self.optimizer.state(), self.world)
        if self.world.rank == 0:
            self.saver.save(Checkpoint(self.step, weights, optimizer, self.data, self.seconds, self.skipped))
        self._saved_step, self._saved_at = self.step, time.monotonic()

    def _stop_if_asked(self, stop: StopRequest) -> None:
        """Save and leave where any rank was asked to; all leave together, for the end of one is the end of all."""
        [signal] = self.world.max(stop.number)
        if not signal:
            return
        self._save()
        self.saver.wait()
        barrier()
        raise TrainingStoppedError(
            f"stopped after step {self.step:,}, saved: the same command goes on from there", int(signal)
        )

    def _validates(self) -> bool:
        """Whether a validation is due: at every `validation_every` of training, and at the end."""
        every = math.ceil(self.training.validation_every * self.training.num_steps)
        return self.step % every == 0 or self.step == self.training.num_steps

    def _validate(self, metrics: Metrics | NullMetrics) -> None:
        scores = self.validation.bits_per_byte(self.objective, self.world)
        if scores:
            tokens = self.step * self.training.batch_tokens
            metrics.write({"step": self.step, "tokens": tokens, "validation": scores})
            shown = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            console.print(f"  step {self.step:,}: bits per byte {shown}")


def _fill(arrays: list[np.ndarray], num_rows: int) -> list[np.ndarray]:
    """Tokens, targets and more (num_rows, time); a rank that has a row less than others gets one without targets."""
    present = len(arrays[0])
    filled = [np.concatenate([array, array[: num_rows - present]]) for array in arrays]
    filled[1][present:] = IGNORE_INDEX
    return filled
