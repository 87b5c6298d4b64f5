"""The progress line of training: step, loss, tokens per second, MFU and time left."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from keylm.common.console import console
from keylm.common.hardware import compute_dtype
from keylm.model.flops import flops_per_token, matmul_flops_per_second
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.train.distributed import DistContext

_WINDOW_STEPS = 20
"""Steps over which loss and speed are averaged."""


class ProgressDisplay:
    """Shows a live line while a `with` block trains; without a terminal, prints 20 lines over the whole training.

    Creating one measures the matmul peak that MFU refers to, which takes half a second.

    Args:
        name: what is trained, such as `pretrain`.
        model: the model's sizes.
        config: of the training.
        step: steps that are done already.
        dist: the peak is that of all ranks together.
    """

    def __init__(self, name: str, model: ModelConfig, config: TrainConfig, step: int, dist: DistContext) -> None:
        self.name, self.config, self.step = name, config, step
        # Products of other shapes or dtypes run at other rates: the peak is that of this training's own.
        dtype = compute_dtype(config.compute_dtype)
        micro_batch_tokens = min(config.micro_batch_tokens, config.batch_tokens)
        self._matmul_peak = dist.world_size * matmul_flops_per_second(model, micro_batch_tokens, dtype, dist.device)
        self._flops_per_token = flops_per_token(model, config.sequence_length)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW_STEPS)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(name, total=config.num_steps, completed=step, line="")

    def __enter__(self) -> ProgressDisplay:
        if console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._progress.stop()

    def mfu(self, tokens_per_second: float) -> float:
        """Model FLOPs utilization (Chowdhery et al. 2022), relative to the measured matmul peak of all ranks."""
        return tokens_per_second * self._flops_per_token / self._matmul_peak

    def advance(self, loss: float, seconds: float) -> None:
        """Show a step that is done, its loss in nats per token and the seconds that it took."""
        self.step += 1
        # Averaged, because the loss of a single step is mostly noise.
        self._recent.append((loss, seconds))
        losses, durations = zip(*self._recent, strict=True)
        tokens_per_second = self.config.batch_tokens * len(durations) / sum(durations)
        line = (
            f"step {self.step:,}/{self.config.num_steps:,}  loss {sum(losses) / len(losses):.3f}  "
            f"{tokens_per_second:,.0f} tokens/s  {self.mfu(tokens_per_second):.0%} MFU"
        )
        self._progress.update(self._task, completed=self.step, line=line)
        if not console.is_terminal and self.step % max(1, self.config.num_steps // 20) == 0:
            console.print(f"  {self.name} {line}")
