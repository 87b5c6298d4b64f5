"""The training loop, for pretraining and SFT alike. They differ in the data and the initial weights they pass in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from keylm.common.arrays import IGNORE_INDEX
from keylm.common.console import console
from keylm.common.errors import KeyLMError, UserError
from keylm.common.hardware import compute_dtype, keep_freed_memory
from keylm.common.ranks import barrier, translate_dist_errors
from keylm.data.loading.loader import Batch, Loader
from keylm.data.loading.prefetch import PrefetchLoader
from keylm.inference.samples import Sample
from keylm.model.device import copy_to_device, peak_memory_bytes, use_deterministic_algorithms
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
from keylm.train.metrics import Metrics, NullMetrics, read_metrics
from keylm.train.optimizer import Optimizer
from keylm.train.progress import ProgressDisplay, sample_lines
from keylm.train.signals import StopRequest, TrainingStoppedError, catch_stop_signals
from keylm.train.validation import Validation, rising


@dataclass
class Trainer:
    """A training run in a folder: `checkpoints/`, `metrics.jsonl` and, at the end, `final/model.safetensors`.

    Every rank has a trainer; only the main process writes.
    """

    folder: Path
    model: KeyLM
    config: TrainConfig
    loader: Loader | PrefetchLoader
    data_fingerprint: str
    """Fingerprint of everything that determines the batches."""
    text: Validation
    """Held-out pretraining text."""
    answers: Validation
    """Held-out answers of SFT; none in pretraining."""
    sample: Callable[[dict[str, Tensor]], Sample | None]
    """Lets weights write something, for those who watch."""
    dist: DistContext
    step: int = 0
    """Steps done, which is also the number of the next one."""
    seconds: float = 0.0
    """Time spent in steps, over all restarts."""
    num_skipped: int = 0
    """Steps without an update, because the loss or gradient was not finite, or the gradient exploded."""
    objective: nn.Module = field(init=False)
    optimizer: Optimizer = field(init=False)
    checkpointer: AsyncCheckpointer = field(init=False)
    _saved_step: int = 0
    _saved_at: float = field(default_factory=time.monotonic)
    _repeated_sources: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        num_sequences = self.config.batch_tokens // self.config.sequence_length
        if num_sequences < self.dist.world_size:
            raise UserError(
                f"{self.folder.name}: a step has {num_sequences} sequences, too few for {self.dist.world_size} "
                f"ranks: start fewer, or raise batch_tokens"
            )
        keep_freed_memory()
        if self.config.deterministic:
            use_deterministic_algorithms()
        self.model.compute_dtype = compute_dtype(self.config.compute_dtype, self.dist.device)
        self.objective = parallelize(self.model, self.config.parallel, self.dist)
        self.optimizer = Optimizer(self.model, self.config.optimizer, self.config.batch_tokens, self.dist)
        self.checkpointer = AsyncCheckpointer(
            self.folder / "checkpoints", self.config.keep_last, self.config.permanent_every
        )

    def run(self) -> None:
        """Train from the latest checkpoint, or else from the model's weights as they are, to the last step.

        Raises:
            TrainingStoppedError: on Ctrl-C or SIGTERM, with everything saved.
            KeyLMError: too many steps were skipped, a checkpoint is damaged or cannot be written, or another rank died.
        """
        with translate_dist_errors(), catch_stop_signals() as stop:
            self._resume()
            is_main = self.dist.rank == 0
            metrics = Metrics(self.folder / "metrics.jsonl", self.step) if is_main else NullMetrics()
            progress = ProgressDisplay(self.folder.name, self.model.config, self.config, self.step, self.dist)
            with closing(metrics), progress:
                # A validation follows the checkpoint of its step. A run killed in between has to repeat it.
                if self.step and self._is_validation_step():
                    self._validate(metrics, stop)
                while self.step < self.config.num_steps:
                    self.train_step(metrics, progress, stop)
                    self._checkpoint_and_validate(metrics, stop)
            weights = full_cpu_state_dict(self.model.state_dict(), self.dist)
            if is_main:
                self.checkpointer.wait()
                save_weights(self.folder / "final", weights)
        barrier()

    def train_step(self, metrics: Metrics | NullMetrics, progress: ProgressDisplay, stop: StopRequest) -> None:
        """Run one optimizer step, from the batch to the line in the log.

        Raises:
            TrainingStoppedError: on a request to stop. The step is abandoned; what was done before it is saved.
            KeyLMError: more than `max_skipped_steps` steps were skipped.
        """
        start = time.perf_counter()

        # Data: this rank's rows of the global batch, which is a function of the step number alone.
        batch = self.loader.batch(self.step, self.dist.rank, self.dist.world_size)
        self._log_new_epochs(batch)
        num_targets, num_rows = self.dist.sum((batch.targets != IGNORE_INDEX).sum(), len(batch.tokens))
        most_rows = math.ceil(num_rows / self.dist.world_size)
        micro_batches = split_batch(batch, most_rows, self.config.micro_batch_tokens, self.dist.device)

        # Forward and backward, accumulating the gradient of the mean loss over the global number of targets. DDP and
        # FSDP average the ranks' gradients, so each is scaled up by their number.
        total_nll = torch.zeros((), dtype=torch.float64, device=self.dist.device)
        for index, micro_batch in enumerate(micro_batches):
            # A step can take minutes, and a scheduler gives short notice: ask here, not once per step.
            self._stop_if_requested(stop)
            with no_sync_context(self.objective, is_last=index == len(micro_batches) - 1):
                nll: Tensor = self.objective(*micro_batch)
                (nll * (self.dist.world_size / num_targets)).backward()  # type: ignore[no-untyped-call]
            total_nll += nll.detach()

        # Clip, and decide whether to skip. Only this step's loss and norm count, no clock and no history, so that a
        # resumed run skips the same steps.
        norm = full_tensor(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm))
        # The first time in the step that the host waits for a GPU.
        own_nll, grad_norm = torch.stack([total_nll, norm.double()]).tolist()
        loss = self.dist.sum(own_nll)[0] / num_targets
        is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
        is_skipped = not is_finite or grad_norm > self.config.skip_grad_norm

        # Update.
        if not is_skipped:
            self.optimizer.step(lr_factor(self.step, self.config))
        self.optimizer.zero_grad()

        # Log.
        duration = time.perf_counter() - start
        self.step, self.seconds = self.step + 1, self.seconds + duration
        row: dict[str, float] = {"step": self.step, "tokens": self.step * self.config.batch_tokens}
        if is_skipped:
            self._log_skip(metrics, row, batch, f"loss {loss:.5g}, gradient norm {grad_norm:.5g}")
        else:
            tokens_per_second = self.config.batch_tokens / duration
            row |= {
                "loss": round(loss, 5),
                "learning_rate": self.optimizer.learning_rate,
                "grad_norm": round(grad_norm, 5),
                "tokens_per_second": round(tokens_per_second, 1),
                "mfu": round(progress.mfu(tokens_per_second), 4),
                "memory_bytes": peak_memory_bytes(self.dist.device),
                "seconds": round(self.seconds, 3),
            }
            metrics.log(row)
        progress.advance(loss, duration)

    def _log_new_epochs(self, batch: Batch) -> None:
        """Print a line when a source has been read to its end and begins another epoch."""
        repeated = batch.sequence_refs.sources[batch.sequence_refs.epochs > 0]
        for source in sorted({batch.sequence_refs.names[index] for index in repeated} - self._repeated_sources):
            console.print(f"  step {self.step:,}: source {source} is exhausted, and is repeated in another order")
            self._repeated_sources.add(source)

    def _log_skip(self, metrics: Metrics | NullMetrics, row: dict[str, float], batch: Batch, reason: str) -> None:
        """Count a skipped step and name its batch, so that its text can be looked at.

        Raises:
            KeyLMError: there were too many.
        """
        self.num_skipped += 1
        first = batch.sequence_refs[0]
        metrics.log(row | {"skipped": self.num_skipped, "reason": reason, "batch": str(first)})
        description = f"{reason}; the batch begins at {first}"
        console.print(f"  step {self.step - 1:,} is skipped ({self.num_skipped} so far): {description}")
        if self.num_skipped > self.config.max_skipped_steps:
            raise KeyLMError(
                f"step {self.step - 1} of {self.folder.name}: {description}. {self.num_skipped} steps had to be "
                f"skipped: look at that batch, and raise {self.folder.name}'s max_skipped_steps to go on from the last "
                f"checkpoint, or lower the learning rate and begin anew with `--remake {self.folder.name}`"
            )

    def _resume(self) -> None:
        """Load the latest checkpoint that the main process finds intact, if there is one."""
        folder = self.checkpointer.folder
        # The main process alone looks, because looking renames damaged checkpoints; the sum tells the other ranks.
        step = int(self.dist.sum(latest_step(folder) if self.dist.rank == 0 else 0)[0])
        self._saved_step, self._saved_at = step, time.monotonic()
        if not step:
            return
        checkpoint = load_checkpoint(folder, step, self.data_fingerprint)
        parameters = dict(self.model.named_parameters())
        self.model.load_state_dict(
            {name: distribute_like(tensor, parameters[name]) for name, tensor in checkpoint.weights.items()}
        )
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.step, self.seconds, self.num_skipped = checkpoint.step, checkpoint.seconds, checkpoint.skipped
        console.print(f"  resuming from step {self.step:,} of {self.config.num_steps:,}")

    def _checkpoint_and_validate(self, metrics: Metrics | NullMetrics, stop: StopRequest) -> None:
        """Save where a checkpoint is due: by the clock, before every validation, and for good every so many steps."""
        self.checkpointer.check()
        minutes = (time.monotonic() - self._saved_at) / 60
        # Clocks differ: one rank's decision must be everyone's, because all take part in a checkpoint.
        [is_late] = self.dist.max(minutes >= self.config.checkpoint_minutes)
        is_permanent = self.config.permanent_every and self.step % self.config.permanent_every == 0
        is_validation = self._is_validation_step()
        if is_late or is_permanent or is_validation:
            self._save_checkpoint()
        if is_validation:
            # On the disk before the validation starts, which may run out of memory.
            self.checkpointer.wait()
            self._validate(metrics, stop)

    def _save_checkpoint(self) -> None:
        """Copy the state to main memory; the main process then writes its copy while training goes on."""
        if self.step == self._saved_step:
            return
        weights = full_cpu_state_dict(self.model.state_dict(), self.dist)
        optimizer = full_cpu_state_dict(self.optimizer.state_dict(), self.dist)
        if self.dist.rank == 0:
            self.checkpointer.save(
                Checkpoint(self.step, weights, optimizer, self.data_fingerprint, self.seconds, self.num_skipped)
            )
        self._saved_step, self._saved_at = self.step, time.monotonic()

    def _stop_if_requested(self, stop: StopRequest) -> None:
        """Save and stop if any rank was asked to. All stop together, because none can go on without the others."""
        [signal] = self.dist.max(stop.number)
        if not signal:
            return
        self._save_checkpoint()
        self.checkpointer.wait()
        barrier()
        raise TrainingStoppedError(
            f"stopped after step {self.step:,}, saved: run the same command to resume", int(signal)
        )

    def _is_validation_step(self) -> bool:
        every = math.ceil(self.config.validation_every * self.config.num_steps)
        return self.step % every == 0 or self.step == self.config.num_steps

    def _validate(self, metrics: Metrics | NullMetrics, stop: StopRequest) -> None:
        """Score held-out text and answers, and let the model write something."""
        row = {"step": self.step, "tokens": self.step * self.config.batch_tokens}
        for key, validation, title in (
            ("validation", self.text, "bits per byte"),
            ("answers", self.answers, "bits per byte of held-out answers:"),
        ):
            if scores := validation.bits_per_byte(self.objective, self.dist, lambda: self._stop_if_requested(stop)):
                line = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
                console.print(f"  step {self.step:,}: {title} {line}")
                self._note_rises(key, scores)
                metrics.log(row | {key: scores})
        # Every rank takes part in gathering the weights.
        weights = full_cpu_state_dict(self.model.state_dict(), self.dist)
        if self.dist.rank == 0 and (sample := self.sample(weights)):
            metrics.log(row | {"sample": sample})
            console.print(sample_lines(self.step, sample))

    def _note_rises(self, key: str, scores: dict[str, float]) -> None:
        """Say which sources are learned by heart. That pretraining text rises in SFT is forgetting, and usual."""
        if self.dist.rank != 0 or (key == "validation" and self.answers.sources):
            return
        earlier = [row for row in read_metrics(self.folder / "metrics.jsonl") if row["step"] < self.step]
        for name, (step, lowest) in rising(scores, earlier, key).items():
            console.print(
                f"  {name} rises, from {lowest:.3f} at step {step:,} to {scores[name]:.3f}: it is being learned by "
                f"heart; fewer tokens of {self.folder.name}, or more data, would serve the model better"
            )


def split_batch(batch: Batch, num_rows: int, micro_batch_tokens: int, device: torch.device) -> list[tuple[Tensor, ...]]:
    """Split a rank's rows into micro-batches on its device.

    Args:
        batch: the rows of this rank.
        num_rows: rows of the rank that has most. A rank with fewer repeats a row, without targets: FSDP gathers
            parameters in every micro-batch, so all ranks must have equally many.
        micro_batch_tokens: at most so many tokens per micro-batch.
        device: the device that computes.

    Returns:
        Tokens, targets and, with intra-document masking, document ids of each micro-batch, all (rows, time) int64.
    """
    num_present, length = batch.tokens.shape
    arrays = [batch.tokens, batch.targets, *([] if batch.document_ids is None else [batch.document_ids])]
    rows = torch.from_numpy(np.stack([np.concatenate([array, array[: num_rows - num_present]]) for array in arrays]))
    rows[1, num_present:] = IGNORE_INDEX
    # All in one copy.
    micro_batches = torch.split(copy_to_device(rows, device), micro_batch_tokens // length, dim=1)
    return [micro_batch.unbind() for micro_batch in micro_batches]
