"""Preference tuning: direct preference optimisation (Rafailov et al. 2023), by trl, on answers and their broken twins.

Twins differ in little, and DPO alone then makes both less likely (Razin et al. 2024): the loss on the chosen answer is
added to it, as in Pang et al. 2024. trl trains transformers' model, whose parameters have the names of ours.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keylm import device as devices
from keylm import machine, ranks
from keylm.chat import Message
from keylm.data import pairs
from keylm.data.instructions.preferences import Pair
from keylm.data.instructions.task import said
from keylm.errors import KeyLMError, UserError
from keylm.recipe import Dpo
from keylm.run import Run
from keylm.screen import Bar, progress
from keylm.train import checkpoint as checkpoints
from keylm.train import metrics
from keylm.train.interrupt import Stop, TrainingStoppedError, watch
from keylm.train.metrics import Metrics

try:
    import datasets
    from transformers import PreTrainedTokenizerFast, PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
    from trl import DPOConfig, DPOTrainer
except ImportError as error:
    raise UserError("the `dpo` stage needs trl: install it with `pip install 'keylm[preference]'`") from error


def build(run: Run) -> dict[str, Any]:
    """Train the SFT weights to prefer verified answers to their broken twins; leaves what other trainings leave.

    Raises:
        TrainingStoppedError: Ctrl-C or SIGTERM; everything is saved.
        UserError: trl is not installed, the sources give too few pairs, or there are several ranks.
        KeyLMError: the loss is not a number.
    """
    if ranks.world_size() > 1:
        raise UserError(f"dpo works in one process: run `keylm dpo {run.folder}` without torchrun")
    folder, settings = run.stage("dpo"), run.recipe.dpo
    assert settings is not None
    run.facts("sft")
    found = pairs.read(run, settings.pairs)
    with watch() as stop, _as_of_today():
        trainer = _trainer(run, settings, found)
        saved = _newest(folder / "checkpoints")
        with (
            progress("dpo", settings.num_steps, "steps") as bar,
            closing(Recorder(folder, settings, stop, bar, _step(saved) if saved else 0)) as recorder,
        ):
            trainer.add_callback(recorder)
            trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    if trainer.state.global_step < settings.num_steps:
        raise TrainingStoppedError(
            f"stopped after step {trainer.state.global_step:,}, saved: the same command goes on from there", stop.number
        )
    checkpoints.save_weights(folder / "final", {name: part.cpu() for name, part in trainer.model.state_dict().items()})
    return {
        "pairs": settings.pairs,
        "steps": settings.num_steps,
        "tokens": recorder.tokens,
        "training_seconds": round(recorder.seconds, 3),
        "compute_dtype": "bfloat16" if trainer.args.bf16 else "float32",
    }


@dataclass
class Recorder(TrainerCallback):  # type: ignore[misc]
    """What trl tells of every step, as a row of `metrics.jsonl`; checkpoints by the clock, and at a request to stop."""

    folder: Path
    settings: Dpo
    stop: Stop
    bar: Bar
    step: int
    """Steps that are done."""
    tokens: int = field(init=False)
    """Tokens of prompts and answers that were read so far, padding left out."""
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.folder / "metrics.jsonl", self.step)
        rows = metrics.read(self.folder / "metrics.jsonl")
        self.tokens, self.seconds = (rows[-1]["tokens"], rows[-1]["seconds"]) if rows else (0, 0.0)
        self._tokens_before = self.tokens
        self._began = self._saved = time.monotonic()
        self.bar.advance(self.step)

    def close(self) -> None:
        """Close the metrics."""
        self.metrics.close()

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
        if not math.isfinite(logs["loss"]):
            raise KeyLMError(
                f"the loss of step {state.global_step - 1} of dpo is not a number: lower dpo.learning_rate"
            )
        took = time.monotonic() - self._began
        tokens = self._tokens_before + round(logs["num_tokens"])
        self.metrics.write(
            {
                "step": state.global_step,
                "tokens": tokens,
                "loss": round(logs["loss"], 5),
                "preferred": round(logs["rewards/accuracies"], 4),
                "margin": round(logs["rewards/margins"] / self.settings.beta, 4),
                "learning_rate": logs["learning_rate"],
                "gradient_norm": round(logs["grad_norm"], 5),
                "tokens_per_second": round((tokens - self.tokens) / took, 1),
                "memory_bytes": devices.peak_memory(args.device),
                "seconds": round(self.seconds + took, 3),
            }
        )
        self.tokens, self.seconds = tokens, self.seconds + took
        self.bar.describe(f"dpo  loss {logs['loss']:.3f}, preferred {logs['rewards/accuracies']:.0%}")


@contextmanager
def _as_of_today() -> Iterator[None]:
    """Keep to ourselves what transformers tells trl of its future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _trainer(run: Run, settings: Dpo, found: list[Pair]) -> DPOTrainer:
    """trl's trainer on the SFT weights, in float32; the reference's likelihoods are computed here, once."""
    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.stage("tokenizer"))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = Qwen3ForCausalLM(Qwen3Config(**run.recipe.model.model_dump(), **ids, tie_word_embeddings=False))
    model.load_state_dict(load_file(run.weights("sft")))
    trainer = DPOTrainer(
        model=model,
        args=_config(run, settings),
        train_dataset=datasets.Dataset.from_list([_row(pair) for pair in found]),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _config(run: Run, settings: Dpo) -> DPOConfig:
    return DPOConfig(
        output_dir=str(run.stage("dpo") / "checkpoints"),
        seed=run.recipe.seed,
        per_device_train_batch_size=settings.micro_batch_pairs,
        gradient_accumulation_steps=settings.batch_pairs // settings.micro_batch_pairs,
        num_train_epochs=1,
        max_length=run.recipe.sft.sequence_length,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.sft_weight],
        beta=settings.beta,
        precompute_ref_log_probs=True,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_fraction * settings.num_steps),
        max_grad_norm=settings.gradient_clip,
        bf16=machine.compute_dtype(run.recipe.sft.compute_dtype) == torch.bfloat16,
        use_cpu=devices.choose().type == "cpu",
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
    )


def _row(pair: Pair) -> dict[str, Sequence[Message]]:
    """A pair in trl's conversational form, to which it applies the tokenizer's chat template."""
    return {"prompt": pair.prompt, "chosen": [said(pair.chosen)], "rejected": [said(pair.rejected)]}


def _newest(folder: Path) -> Path | None:
    """trl's newest checkpoint; one that a kill left half-written lacks the file that is written last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
