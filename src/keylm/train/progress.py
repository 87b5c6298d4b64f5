"""The progress line of training: time left, step, loss, tokens per second and MFU."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich.progress import Progress, TextColumn
from rich.text import Text

from keylm.common.console import console, printable
from keylm.common.hardware import compute_dtype
from keylm.inference.samples import Sample
from keylm.model.flops import flops_per_token, matmul_flops_per_second
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.train.distributed import DistContext

_WINDOW_STEPS = 20
"""Steps over which loss and speed are averaged."""
_SHOWN_CHARACTERS = 200
"""Characters of a sample that are shown: with what stands before them three lines of a narrow terminal."""


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
        dtype = compute_dtype(config.compute_dtype, dist.device)
        micro_batch_tokens = min(config.micro_batch_tokens, config.batch_tokens)
        self._matmul_peak = dist.world_size * matmul_flops_per_second(model, micro_batch_tokens, dtype, dist.device)
        self._flops_per_token = flops_per_token(model, config.sequence_length)
        self._recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW_STEPS)
        self._progress = Progress(
            TextColumn("{task.fields[line]}", markup=False), console=console, refresh_per_second=4
        )
        self._task = self._progress.add_task(name, total=config.num_steps, completed=step, line=f"  {name}")

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
        mean_duration = sum(durations) / len(durations)
        tokens_per_second = self.config.batch_tokens / mean_duration
        line = progress_line(
            self.name,
            self.step,
            self.config.num_steps,
            seconds_left=(self.config.num_steps - self.step) * mean_duration,
            loss=sum(losses) / len(losses),
            tokens_per_second=tokens_per_second,
            mfu=self.mfu(tokens_per_second),
        )
        self._progress.update(self._task, completed=self.step, line=line)
        if not console.is_terminal and self.step % max(1, self.config.num_steps // 20) == 0:
            console.print(line)


def progress_line(
    name: str, step: int, num_steps: int, seconds_left: float, loss: float, tokens_per_second: float, mfu: float
) -> str:
    """How training goes, in a line of at most 80 columns, what one wants to know most first."""
    return (
        f"  {time_left(seconds_left)} left  {name} {step:,}/{num_steps:,}  "
        f"loss {loss:.3f}  {tokens_per_second:,.0f} tok/s  {mfu:.0%} MFU"
    )


def sample_lines(step: int, sample: Sample) -> Text:
    """What the model makes of a held-out prompt, in a few lines."""
    asked = " / ".join(message["content"] for message in sample["messages"])
    parts = [("asked", asked), ("answers", sample["answer"]), ("held out", sample["reference"])]
    if not asked:
        parts = [("goes on", f"{sample['prompt']} ▸ {sample['answer']}")]
    lines = [f"  step {step:,} {label}: {_in_brief(text)}" for label, text in parts]
    return Text("\n".join(lines), style="dim")


def _in_brief(text: str) -> str:
    words = printable(" ".join(text.split()))
    return words if len(words) <= _SHOWN_CHARACTERS else f"{words[:_SHOWN_CHARACTERS]}…"


def time_left(seconds: float) -> str:
    """Seconds as `3 d 04:05`, or `4:05:06` where it is less than a day."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    return f"{days} d {hours_of_day:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d}:{rest:02d}"
