"""The loop: one for pretraining and SFT. What differs between them, the data and the first weights, is given to it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from keylm import machine
from keylm.data.batches import IGNORED, Batch, Loader
from keylm.errors import KeyLMError
from keylm.model import KeyLM
from keylm.recipe import Training
from keylm.screen import console
from keylm.train import checkpoint as checkpoints
from keylm.train.checkpoint import Checkpoint
from keylm.train.interrupt import Stop, TrainingStoppedError, watch
from keylm.train.metrics import Metrics
from keylm.train.optimizer import Optimizer
from keylm.train.progress import Live
from keylm.train.schedule import share_of_peak
from keylm.train.validation import Validation


@dataclass
class Trainer:
    """A training run in a folder: `checkpoints/`, `metrics.jsonl` and, at the end, `final/model.safetensors`."""

    folder: Path
    model: KeyLM
    training: Training
    loader: Loader
    data: str
    """Fingerprint of everything the batches come from."""
    validation: Validation
    step: int = 0
    seconds: float = 0.0
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.model.compute_dtype = machine.compute_dtype(self.training.compute_dtype)
        self.optimizer = Optimizer(self.model, self.training.optimizer)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the model's weights as they are, to the end.

        Raises:
            TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
            KeyLMError: the loss or the gradient is not a number, or a checkpoint is damaged or cannot be written.
        """
        self._resume()
        metrics = Metrics(self.folder / "metrics.jsonl", self.step)
        with watch() as stop, Live(self.folder.name, self.model.config, self.training, self.step) as live:
            while self.step < self.training.num_steps:
                self._one_step(metrics, live)
                self._save_if_due(metrics, stop)
        metrics.close()
        checkpoints.save_weights(self.folder / "final", self.model.state_dict())

    def _resume(self) -> None:
        found = checkpoints.load_newest(self.folder / "checkpoints", self.data)
        self._saved_at = time.monotonic()
        if found is None:
            return
        self.model.load_state_dict(found.weights)
        self.optimizer.load_state(found.optimizer)
        self.step, self.seconds = found.step, found.seconds
        console.print(f"  goes on from step {self.step:,} of {self.training.num_steps:,}")

    def _one_step(self, metrics: Metrics, live: Live) -> None:
        start = time.perf_counter()
        batch = self.loader.batch(self.step)
        loss = self._gradient(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise KeyLMError(
                f"step {self.step} of {self.folder.name}: loss {loss}, gradient norm {norm}; the batch begins at "
                f"{batch.addresses[0]}. Lower the learning rate and run again: the last checkpoint is whole"
            )
        share = share_of_peak(self.step, self.training)
        self.optimizer.step(share)
        took = time.perf_counter() - start
        self.step, self.seconds = self.step + 1, self.seconds + took
        tokens_per_second = self.training.batch_tokens / took
        live.advance(loss, took)
        metrics.write(
            {
                "step": self.step,
                "tokens": self.step * self.training.batch_tokens,
                "loss": round(loss, 5),
                "learning_rate": self.optimizer.learning_rate,
                "gradient_norm": round(norm, 5),
                "tokens_per_second": round(tokens_per_second, 1),
                "limit_share": round(live.limit_share(tokens_per_second), 4),
                "seconds": round(self.seconds, 3),
            }
        )

    def _gradient(self, batch: Batch) -> float:
        """Accumulate the gradient of a batch's mean loss over its targets; return that loss in nats."""
        num_targets = int((batch.targets != IGNORED).sum())
        rows = self.training.micro_batch_tokens // batch.addresses.length
        total = 0.0
        for first in range(0, len(batch.tokens), rows):
            part = slice(first, first + rows)
            tokens, targets = torch.from_numpy(batch.tokens[part]), torch.from_numpy(batch.targets[part])
            segments = None if batch.segments is None else torch.from_numpy(batch.segments[part])
            loss = self.model.loss(tokens, targets, segments)
            (loss / num_targets).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total / num_targets

    def _save_if_due(self, metrics: Metrics, stop: Stop) -> None:
        validates = self._validates()
        minutes = (time.monotonic() - self._saved_at) / 60
        if not (validates or stop.asked or minutes >= self.training.checkpoint_minutes):
            return
        checkpoints.save(self.folder / "checkpoints", self._checkpoint(), self.training.keep_checkpoints)
        self._saved_at = time.monotonic()
        if stop.asked and self.step < self.training.num_steps:
            raise TrainingStoppedError(f"stopped after step {self.step:,}, saved: the same command goes on from there")
        if validates:
            self._validate(metrics)

    def _validates(self) -> bool:
        """Whether a validation is due: at every `validation_every` of training, and at the end."""
        every = math.ceil(self.training.validation_every * self.training.num_steps)
        return self.step % every == 0 or self.step == self.training.num_steps

    def _validate(self, metrics: Metrics) -> None:
        scores = self.validation.bits_per_byte(self.model)
        if scores:
            tokens = self.step * self.training.batch_tokens
            metrics.write({"step": self.step, "tokens": tokens, "validation": scores})
            shown = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            console.print(f"  step {self.step:,}: bits per byte {shown}")

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.step, self.model.state_dict(), self.optimizer.state(), self.data, self.seconds)
