"""The live line of training: step, loss, tokens per second, share of the machine's product rate, time left."""

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


class ProgressDisplay:
    """Shows one line while a `with` block trains; where there is no terminal, a line at every twentieth."""

    def __init__(self, name: str, model: ModelConfig, training: TrainConfig, step: int, world: DistContext) -> None:
        self.name, self.training, self.step = name, training, step
        dtype = compute_dtype(training.compute_dtype)
        tokens = min(training.micro_batch_tokens, training.batch_tokens)
        self._limit = world.size * matmul_flops_per_second(model, tokens, dtype, world.device)
        self._flops = flops_per_token(model, training.sequence_length)
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
        self._task = self._progress.add_task(name, total=training.num_steps, completed=step, line="")

    def __enter__(self) -> ProgressDisplay:
        if console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._progress.stop()

    def mfu(self, tokens_per_second: float) -> float:
        """Model operations per second over the product rate of all ranks at the model's shapes."""
        return tokens_per_second * self._flops / self._limit

    def advance(self, loss: float, seconds: float) -> None:
        """One step is done; it took `seconds`."""
        self.step += 1
        self._recent.append((loss, seconds))
        line = self._line()
        self._progress.update(self._task, completed=self.step, line=line)
        if not console.is_terminal and self.step % max(1, self.training.num_steps // 20) == 0:
            console.print(f"  {self.name} {line}")

    def _line(self) -> str:
        losses, seconds = zip(*self._recent, strict=True)
        rate = self.training.batch_tokens * len(seconds) / sum(seconds)
        return (
            f"step {self.step:,}/{self.training.num_steps:,}  loss {sum(losses) / len(losses):.3f}  "
            f"{rate:,.0f} tokens/s  {self.mfu(rate):.0%} of the product rate"
        )
