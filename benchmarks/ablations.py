"""What each part of the training recipe contributes: `python benchmarks/ablations.py DATA OUT [VARIANT ...]`.

`DATA` is a run whose `prepare` stage is done; its recipe gives the model and the text. For docs/log.md it was made by

    keylm tokenizer recipes/corpora.yaml --run runs/ablations/data --set model.num_hidden_layers=8
    keylm prepare runs/ablations/data

which is keylm-nano's shape on real text. Each variant trains the model on the same tokens in the same order, once per
seed. Its bits per byte on held-out text, the weighted mean over sources, go to `OUT/results.jsonl`. Runs that are there
already are skipped, and interrupted runs resume. What a variant does and the package does not is implemented here.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.loading.loader import Batch
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.model.flops import num_matmul_parameters
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run
from keylm.train import optimizer
from keylm.train.distributed import init_distributed
from keylm.train.lr_schedule import lr_factor
from keylm.train.metrics import read_metrics
from keylm.train.optimizer import Muon
from keylm.train.stages import make_loader
from keylm.train.trainer import Trainer
from keylm.train.validation import Validation, validation_on_text

VALIDATION_BYTES = 250_000
ADAMW = {"optimizer.type": "adamw", "optimizer.weight_decay": 0.1, "decay": "cosine", "decay_fraction": 0.98}
RATES = (0.0005, 0.001, 0.002, 0.004)
ROLES = ("hidden", "embedding", "head", "norm")


class Averaging(Trainer):
    """The final weights are the mean over the last fifth of the steps (Kaddour 2022, "LAWA")."""

    mean: dict[str, Tensor] | None = None
    count = 0

    def train_step(self, *args: Any) -> None:
        """Add the weights after the step to the mean."""
        super().train_step(*args)
        if self.step < 0.8 * self.config.num_steps:
            return
        weights = self.model.state_dict()
        self.count += 1
        self.mean = self.mean or {name: tensor.clone() for name, tensor in weights.items()}
        for name, tensor in weights.items():
            self.mean[name].lerp_(tensor, 1 / self.count)

    def _validate(self, metrics: Any) -> None:
        self.model.load_state_dict(self.mean or self.model.state_dict())
        super()._validate(metrics)


class Ramp(Trainer):
    """In the first third of training, every batch is split into four, each with an update of its own."""

    def train_step(self, *args: Any) -> None:
        """Run three extra updates before the ordinary step."""
        if self.step > self.config.num_steps / 3:
            super().train_step(*args)
            return
        loader, batch = self.loader, self.loader.batch(self.step)
        size = len(batch.tokens) // 4
        parts = [slice(first, first + size) for first in range(0, 4 * size, size)]
        batches = [Batch(batch.tokens[part], batch.targets[part], None, batch.sequence_refs) for part in parts]
        for part in batches[:-1]:
            tokens, targets = torch.from_numpy(part.tokens), torch.from_numpy(part.targets)
            (self.objective(tokens, targets) / (targets != IGNORE_INDEX).sum()).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self.optimizer.step(lr_factor(self.step, self.config))
            self.optimizer.zero_grad()
        # The last part goes through the ordinary step, which logs it.
        self.loader = OneBatch(batches[-1])  # type: ignore[assignment]
        super().train_step(*args)
        self.loader = loader


class OneBatch:
    """A loader of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def batch(self, *_: int) -> Batch:
        """The batch, for any step."""
        return self._batch


class CautiousMuon(Muon):
    """Weights decay only where the update points to zero too (Chen et al. 2025, "Cautious Weight Decay")."""

    def _apply(self, params: list[Tensor], updates: list[Tensor], lr: float, scale: float, weight_decay: float) -> None:
        for p, update in zip(params, updates, strict=True):
            p.sub_(p * ((update * p) > 0), alpha=lr * weight_decay).add_(update, alpha=-scale)


class NormalizedMuon(Muon):
    """Rows of the orthogonal update are normalized by a running mean of their squares (Li et al. 2025, "NorMuon")."""

    def _apply(self, params: list[Tensor], updates: list[Tensor], lr: float, scale: float, weight_decay: float) -> None:
        for p, update in zip(params, updates, strict=True):
            squares = update.square().mean(dim=1, keepdim=True)
            second = self.state[p].setdefault("second", torch.zeros_like(squares)).lerp_(squares, 0.05)
            normed = update / second.sqrt().clamp(min=1e-8)
            p.mul_(1 - lr * weight_decay).add_(normed * (update.norm() / normed.norm().clamp(min=1e-8)), alpha=-scale)


@torch.no_grad()
def gpt2_init(config: ModelConfig, seed: int) -> KeyLM:
    """Normal weights of 0.02, with output projections scaled down by the square root of the depth, as in GPT-2."""
    model, generator = KeyLM(config), torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02, generator=generator)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_(1 / math.sqrt(2 * config.num_hidden_layers))
    return model


def normal_init(config: ModelConfig, seed: int) -> KeyLM:
    """`model.initialization: normal`: normal weights of 0.02, with output projections of zero."""
    return init_model(config.model_copy(update={"initialization": "normal"}), seed)


@dataclass(frozen=True)
class Variant:
    """What differs from the default."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the recipe's section `train`."""
    init: Callable[[ModelConfig, int], KeyLM] = init_model
    trainer: type[Trainer] = Trainer
    muon: type[Muon] = Muon
    share: float = 1.0
    """Fraction of the tokens to train on."""


def variants() -> dict[str, Variant]:
    """All variants by name."""
    by_name = {
        "default": Variant(),
        "default-0.7": Variant(share=0.7),
        "default-0.5": Variant(share=0.5),
        "ordinary-weights": Variant(init=gpt2_init),
        "zero-outputs": Variant(init=normal_init),
        "one-adamw-rate": Variant({f"optimizer.learning_rates.{role}": 1e-3 for role in ROLES[1:]}),
        "cosine": Variant({"decay": "cosine", "decay_fraction": 0.98}),
        "decay-0.2": Variant({"decay_fraction": 0.2}),
        "decay-0.98": Variant({"decay_fraction": 0.98}),
        "decay-0.2-average": Variant({"decay_fraction": 0.2}, trainer=Averaging),
        "average": Variant(trainer=Averaging),
        "ramp": Variant(trainer=Ramp),
        "weight-decay": Variant({"optimizer.weight_decay": 0.3}),
        "weight-decay-cautious": Variant({"optimizer.weight_decay": 0.3}, muon=CautiousMuon),
        "normalised": Variant(muon=NormalizedMuon),
    }
    for scale in (0.5, 2.0):
        by_name[f"scale-{scale:g}"] = Variant({"optimizer.learning_rate_scale": scale})
    for rate in RATES:
        same = {f"optimizer.learning_rates.{role}": rate for role in ROLES}
        by_name[f"adamw-{rate:g}"] = Variant(ADAMW | same, gpt2_init)
        by_name[f"adamw-our-weights-{rate:g}"] = Variant(ADAMW | same)
    return by_name


def main() -> None:
    """Train the runs that are missing."""
    options = _options()
    recipe = load_recipe(options.data / "recipe.yaml", options.set)
    run, results = Run(options.data, recipe), options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.variants or list(variants()):
        for seed in options.seeds:
            if not any((row["variant"], row["seed"]) == (name, seed) for row in read_metrics(results)):
                row = {"variant": name, "seed": seed} | _train(run, options, name, seed)
                print(row, flush=True)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _train(run: Run, options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one variant, and return its row of the results."""
    variant = variants()[name]
    common = {
        "tokens": round(options.tokens * variant.share),
        "batch_tokens": options.batch,
        "micro_batch_tokens": options.batch,
        "validation_every": 1.0,
        "validation_bytes": VALIDATION_BYTES,
    }
    # Through the schema, so that a variant is checked as a recipe is.
    values = run.recipe.train.model_dump()
    for key, value in (common | variant.settings).items():
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    config = TrainConfig.model_validate(values)
    run = Run(run.folder, run.recipe.model_copy(update={"seed": seed, "train": config}))
    folder = options.out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    names = [source.name for source in available_sources(run, "pretrain")]
    stores = {name: open_store(run, "pretrain", name, "validation") for name in names}
    with _replace_muon(variant.muon):
        trainer = variant.trainer(
            folder=folder,
            model=variant.init(run.recipe.model, seed).train(),
            config=config,
            loader=make_loader(run, "pretrain"),
            data_fingerprint="",
            text=validation_on_text(stores, VALIDATION_BYTES, config.sequence_length),
            answers=Validation({}),
            sample=lambda _: None,
            dist=init_distributed(config.timeout_seconds),
        )
    trainer.run()
    scores = [row["validation"] for row in read_metrics(folder / "metrics.jsonl") if "validation" in row][-1]
    weights = {source.name: source.weight for source in run.recipe.data.sources}
    total = sum(weights[source] * score for source, score in scores.items())
    return {
        "parameters": num_matmul_parameters(run.recipe.model),
        "tokens": config.tokens,
        "batch": options.batch,
        "bits_per_byte": round(total / sum(weights[source] for source in scores), 5),
        "by_source": scores,
        "seconds": round(trainer.seconds),
    }


@contextmanager
def _replace_muon(muon: type[Muon]) -> Iterator[None]:
    """Let `Optimizer` use another Muon."""
    original = optimizer.Muon
    optimizer.Muon = muon  # type: ignore[misc]
    try:
        yield
    finally:
        optimizer.Muon = original  # type: ignore[misc]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", help="names of variants (default: all)")
    parser.add_argument("--tokens", type=float, default=655_360, help="tokens per run")
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="recipe overrides, such as model.hidden_size=128")
    return parser.parse_args()


if __name__ == "__main__":
    main()
