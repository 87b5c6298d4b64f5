"""What the trainings by trl have in common: the model that they start from, checkpoints, metrics, final weights.

trl trains transformers' model, whose parameters have the names of ours.
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
from keylm.train import metrics
from keylm.train.checkpoint import save_weights
from keylm.train.metrics import Metrics
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

Measures = Callable[[dict[str, float]], dict[str, float]]
"""The columns of `metrics.jsonl` that are a training's own, from what trl tells of a step; the first is shown."""


@dataclass(frozen=True)
class Policy:
    """What is trained: the weights of the training before, in float32, and their tokenizer."""

    model: Qwen3ForCausalLM
    tokenizer: PreTrainedTokenizerFast


def run_trl(run: Run, stage: str, make: Callable[[Policy], Trainer], measures: Measures) -> dict[str, Any]:
    """Train what `make` prepares from the newest checkpoint, or from the start, to the end; returns the facts.

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
        UserError: there are several ranks.
        KeyLMError: the loss is not a number.
    """
    folder, settings = run.stage(stage), posttrain_config(run, stage)
    if world_size() > 1:
        raise UserError(f"{stage} works in one process: run `keylm {stage} {run.folder}` without torchrun")
    with catch_stop_signals() as stop, _as_of_today():
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
        trainer = make(_policy(run, stage))
        trainer.remove_callback(PrinterCallback)
        saved = _newest(folder / "checkpoints")
        with (
            progress(stage, posttrain_config(run, stage).num_steps, "steps") as bar,
            closing(Recorder(folder, settings, measures, stop, bar, _step(saved) if saved else 0)) as recorder,
        ):
            trainer.add_callback(recorder)
            trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    if trainer.state.global_step < posttrain_config(run, stage).num_steps:
        raise TrainingStoppedError(
            f"stopped after step {trainer.state.global_step:,}, saved: the same command goes on from there", stop.number
        )
    save_weights(folder / "final", {name: part.cpu() for name, part in trainer.model.state_dict().items()})
    return {
        "steps": trainer.state.global_step,
        "tokens": recorder.tokens,
        "training_seconds": round(recorder.seconds, 3),
        "compute_dtype": "bfloat16" if trainer.args.bf16 else "float32",
    }


def posttrain_config(run: Run, stage: str) -> DpoConfig | GrpoConfig:
    """The recipe's section for a stage that it has."""
    settings: DpoConfig | GrpoConfig = getattr(run.recipe, stage)
    return settings


def trl_arguments(run: Run, stage: str) -> dict[str, Any]:
    """What trl is told in every training."""
    settings = posttrain_config(run, stage)
    return {
        "output_dir": str(run.stage(stage) / "checkpoints"),
        "seed": run.recipe.seed,
        "learning_rate": settings.learning_rate,
        "warmup_steps": round(settings.warmup_fraction * posttrain_config(run, stage).num_steps),
        "lr_scheduler_type": "linear",
        "max_grad_norm": settings.max_grad_norm,
        "bf16": compute_dtype(run.recipe.sft.compute_dtype) == torch.bfloat16,
        "use_cpu": get_device().type == "cpu",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": [],
    }


@dataclass
class Recorder(TrainerCallback):  # type: ignore[misc]
    """What trl tells of every step, as a row of `metrics.jsonl`; checkpoints by the clock, and at a request to stop."""

    folder: Path
    settings: DpoConfig | GrpoConfig
    measures: Measures
    stop: StopRequest
    bar: Bar
    step: int
    """Steps that are done."""
    tokens: int = field(init=False)
    """Tokens of prompts and answers that were read so far, padding left out."""
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.folder / "metrics.jsonl", self.step)
        rows = metrics.read_metrics(self.folder / "metrics.jsonl")
        self.tokens, self.seconds = (rows[-1]["tokens"], rows[-1]["seconds"]) if rows else (0, 0.0)
        self._tokens_before = self.tokens
        self._began = self._saved = time.monotonic()
        self.bar.advance(self.step)

    def close(self) -> None:
        """Close the metrics."""
        self.metrics.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take note of what trl has counted already: some trainers of its go on counting, others begin anew."""
        self._tokens_before -= state.num_input_tokens_seen

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Ask for a checkpoint where one is due, and for an end where someone wants it."""
        self.bar.advance()
        control.should_training_stop |= bool(self.stop.number)
        is_late = time.monotonic() - self._saved >= 60 * self.settings.checkpoint_minutes
        if is_late or self.stop.number:
            control.should_save, self._saved = True, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        """Write the row of a step.

        Raises:
            KeyLMError: its loss is not a number.
        """
        if "loss" not in logs:
            return
        stage = self.folder.name
        if not math.isfinite(logs["loss"]):
            raise KeyLMError(
                f"the loss of step {state.global_step - 1} of {stage} is not a number: lower {stage}.learning_rate"
            )
        took = time.monotonic() - self._began
        tokens = self._tokens_before + round(logs["num_tokens"])
        own = self.measures(logs)
        self.metrics.write(
            {
                "step": state.global_step,
                "tokens": tokens,
                "loss": round(logs["loss"], 5),
                **{name: round(value, 4) for name, value in own.items()},
                "learning_rate": logs["learning_rate"],
                "gradient_norm": round(logs["grad_norm"], 5),
                "tokens_per_second": round((tokens - self.tokens) / took, 1),
                "memory_bytes": peak_memory_bytes(args.device),
                "seconds": round(self.seconds + took, 3),
            }
        )
        self.tokens, self.seconds = tokens, self.seconds + took
        shown = next(iter(own))
        self.bar.set_description(f"{stage}  loss {logs['loss']:.3f}, {shown} {own[shown]:.0%}")


@contextmanager
def _as_of_today() -> Iterator[None]:
    """Keep to ourselves what transformers tells trl of its future, and trl of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "You are using 'rollout_func'")
        yield


def _policy(run: Run, stage: str) -> Policy:
    before = training_stages(run)[training_stages(run).index(stage) - 1]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.stage("tokenizer"))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = Qwen3ForCausalLM(Qwen3Config(**run.recipe.model.model_dump(), **ids, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.weights(before)))
    return Policy(model, tokenizer)


def _newest(folder: Path) -> Path | None:
    """trl's newest checkpoint; one that a kill left half-written lacks the file that is written last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
