"""What DPO and GRPO have in common: the initial weights, checkpoints, metrics, stopping, and the final weights.

trl trains transformers' Qwen3 model, whose parameters have the same names as ours.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keylm.common.console import Bar, progress
from keylm.common.errors import KeyLMError, UserError
from keylm.common.hardware import compute_dtype
from keylm.common.ranks import world_size
from keylm.model.device import get_device, peak_memory_bytes
from keylm.recipe.dpo import DpoConfig
from keylm.recipe.grpo import GrpoConfig
from keylm.run import Run
from keylm.stages import training_stages
from keylm.train.checkpoint import save_weights
from keylm.train.metrics import Metrics, read_metrics
from keylm.train.signals import StopRequest, TrainingStoppedError, catch_stop_signals

try:
    import datasets
    import trl  # noqa: F401
    from transformers import (
        PreTrainedTokenizerFast,
        PrinterCallback,
        Qwen3Config,
        Qwen3ForCausalLM,
        Trainer,
        TrainerCallback,
        logging,
    )
except ImportError as error:
    raise UserError("`dpo` and `grpo` need trl: install it with `pip install 'keylm[preference]'`") from error

Columns = Callable[[dict[str, float]], dict[str, float]]
"""Maps trl's logs of a step to a stage's own columns of `metrics.jsonl`. The first is a fraction, shown on screen."""


@dataclass(frozen=True)
class Policy:
    """The model to train, in float32, and its tokenizer."""

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerFast


def run_trl(
    run: Run,
    stage: str,
    config: DpoConfig | GrpoConfig,
    make_trainer: Callable[[Policy], Trainer],
    columns: Columns,
) -> dict[str, Any]:
    """Train with a trainer of trl, from the latest checkpoint or the previous training stage's weights, to the end.

    Returns:
        The part of the stage's metadata that all of these stages have.

    Raises:
        TrainingStoppedError: on Ctrl-C or SIGTERM, with everything saved.
        UserError: there are several ranks.
        KeyLMError: the loss is not finite.
    """
    if world_size() > 1:
        raise UserError(f"{stage} works in one process: run `keylm {stage} {run.folder}` without torchrun")
    folder = run.stage(stage)
    with catch_stop_signals() as stop, _silence_warnings():
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
        trainer = make_trainer(_load_policy(run, stage))
        # It would print every step's logs as a dictionary into the progress bar.
        trainer.remove_callback(PrinterCallback)
        # A checkpoint that a kill left half-written lacks the file that is written last.
        finished = [path.parent for path in (folder / "checkpoints").glob("checkpoint-*/trainer_state.json")]
        latest = max(finished, key=_checkpoint_step, default=None)
        steps_done = _checkpoint_step(latest) if latest else 0
        with (
            progress(stage, config.num_steps, "steps") as bar,
            closing(TrainingCallback(folder, config, columns, stop, bar, steps_done)) as callback,
        ):
            trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=str(latest) if latest else None)
        if trainer.state.global_step < config.num_steps:
            raise TrainingStoppedError(
                f"stopped after step {trainer.state.global_step:,}, saved: run the same command to resume", stop.number
            )
        save_weights(folder / "final", {name: tensor.cpu() for name, tensor in trainer.model.state_dict().items()})
    return {
        "steps": trainer.state.global_step,
        "tokens": callback.tokens,
        "training_seconds": round(callback.seconds, 3),
        "compute_dtype": "bfloat16" if trainer.args.bf16 else "float32",
    }


def trl_arguments(run: Run, stage: str, config: DpoConfig | GrpoConfig) -> dict[str, Any]:
    """The arguments that trl's `DPOConfig` and `GRPOConfig` share."""
    return {
        "output_dir": str(run.stage(stage) / "checkpoints"),
        "seed": run.recipe.seed,
        "learning_rate": config.learning_rate,
        "warmup_steps": round(config.warmup_fraction * config.num_steps),
        "lr_scheduler_type": "linear",
        "max_grad_norm": config.max_grad_norm,
        "bf16": compute_dtype(run.recipe.sft.compute_dtype, get_device()) == torch.bfloat16,
        "use_cpu": get_device().type == "cpu",
        # trl's default would compute every layer twice to save memory that models of this size do not need.
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        # The callback saves, by the clock.
        "save_strategy": "no",
        "save_total_limit": 2,
        "logging_steps": 1,
        # The filter would replace a loss that is not finite by a plausible one, and training would go on.
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": [],
    }


@dataclass
class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Writes a row of `metrics.jsonl` per step, requests checkpoints by the clock, and serves a request to stop."""

    folder: Path
    config: DpoConfig | GrpoConfig
    columns: Columns
    stop: StopRequest
    bar: Bar
    steps_done: int
    """Steps done before this process."""
    tokens: int = field(init=False)
    """Tokens of prompts and answers so far, without padding."""
    seconds: float = field(init=False)
    """Time spent in steps so far, over all restarts."""

    def __post_init__(self) -> None:
        path = self.folder / "metrics.jsonl"
        self.metrics = Metrics(path, self.steps_done)
        rows = read_metrics(path)
        self.tokens, self.seconds = (rows[-1]["tokens"], rows[-1]["seconds"]) if rows else (0, 0.0)
        self._tokens_before = self.tokens
        self._step_began = self._last_saved = time.monotonic()
        self.bar.advance(self.steps_done)

    def close(self) -> None:
        """Close the metrics."""
        self.metrics.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Align the token counts: after a resume, some of trl's trainers go on counting, others start from 0."""
        self._tokens_before -= state.num_input_tokens_seen

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the step's clock."""
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Request a checkpoint if one is due, and the end of training if someone asked for it."""
        self.bar.advance()
        control.should_training_stop |= bool(self.stop.number)
        is_late = time.monotonic() - self._last_saved >= 60 * self.config.checkpoint_minutes
        if is_late or self.stop.number:
            control.should_save, self._last_saved = True, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        """Write the metrics of a step.

        Raises:
            KeyLMError: its loss is not finite.
        """
        # trl also logs a summary of the whole training at the end.
        if "loss" not in logs:
            return
        stage = self.folder.name
        if not math.isfinite(logs["loss"]):
            raise KeyLMError(
                f"the loss of step {state.global_step - 1} of {stage} is not a number: lower {stage}.learning_rate"
            )
        duration = time.monotonic() - self._step_began
        tokens = self._tokens_before + round(logs["num_tokens"])
        own_columns = self.columns(logs)
        self.metrics.log(
            {
                "step": state.global_step,
                "tokens": tokens,
                "loss": round(logs["loss"], 5),
                **{name: round(value, 4) for name, value in own_columns.items()},
                "learning_rate": logs["learning_rate"],
                "grad_norm": round(logs["grad_norm"], 5),
                "tokens_per_second": round((tokens - self.tokens) / duration, 1),
                "memory_bytes": peak_memory_bytes(args.device),
                "seconds": round(self.seconds + duration, 3),
            }
        )
        self.tokens, self.seconds = tokens, self.seconds + duration
        name, value = next(iter(own_columns.items()))
        self.bar.set_description(f"{stage}  loss {logs['loss']:.3f}, {name} {value:.0%}")


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Hide the deprecations that transformers announces to trl, and trl's warning about its experimental rollouts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "You are using 'rollout_func'")
        yield


def _load_policy(run: Run, stage: str) -> Policy:
    """The weights of the training stage before `stage`, as transformers' model."""
    names = training_stages(run)
    previous = names[names.index(stage) - 1]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.stage("tokenizer"))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = run.recipe.model.transformers_fields
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **ids, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.verified_weights(previous)))
    return Policy(model, tokenizer)


def _checkpoint_step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
