"""What each part of the training recipe is worth: `python benchmarks/ablations.py DATA OUT [VARIANT ...]`.

`DATA` is a run whose `prepare` stage is done; its recipe gives the model and the text. For docs/log.md it was made by

    keylm tokenizer recipes/corpora.yaml --run runs/ablations/data --set model.num_hidden_layers=8
    keylm prepare runs/ablations/data

which is keylm-nano's shape on real text. Each variant trains the model on the same tokens in the same order, once per
seed. Its held-out bits per byte, the mean over sources by their weights, go to `OUT/results.jsonl`; what is there
already is left out, and what was interrupted goes on. What a variant does and the product does not stands here.
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

from keylm.data.loading.loader import Batch
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.model.flops import num_matmul_parameters
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run
from keylm.train import metrics as rows
from keylm.train import optimizer
from keylm.train.distributed import init_distributed
from keylm.train.lr_schedule import lr_factor
from keylm.train.optimizer import Muon
from keylm.train.signals import StopRequest
from keylm.train.stages import make_loader
from keylm.train.trainer import Trainer
from keylm.train.validation import Validation

VALIDATION_BYTES = 250_000
ADAMW = {"optimizer.kind": "adamw", "optimizer.weight_decay": 0.1, "decay": "cosine", "decay_fraction": 0.98}
RATES = (0.0005, 0.001, 0.002, 0.004)
ROLES = ("hidden", "embedding", "head", "norm")


class Averaging(Trainer):
    """At the end, the weights are the mean over the last fifth of the steps (Kaddour 2022, "LAWA")."""

    mean: dict[str, Tensor] | None = None
    count = 0

    def _one_step(self, *args: Any) -> None:
        super()._one_step(*args)
        if self.step < 0.8 * self.training.num_steps:
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
    """In the first third of training every batch is taken in four parts, each with an update of its own."""

    def _gradient(self, batch: Batch, stop: StopRequest) -> float:
        if self.step > self.training.num_steps / 3:
            return super()._gradient(batch, stop)
        each = len(batch.tokens) // 4
        for part in range(4):
            if part:
                self._clip()
                self.optimizer.step(lr_factor(self.step, self.training))
            taken = slice(part * each, (part + 1) * each)
            loss = super()._gradient(Batch(batch.tokens[taken], batch.targets[taken], None, batch.sequence_refs), stop)
        return loss


class CautiousMuon(Muon):
    """Weights decay only where the update, too, points to zero (Chen et al. 2025, "Cautious Weight Decay")."""

    def _apply(self, p: Tensor, update: Tensor, lr: float, scale: float, decay: float) -> None:
        p.sub_(p * ((update * p) > 0), alpha=lr * decay).add_(update, alpha=-scale)


class NormalisedMuon(Muon):
    """The rows of an orthogonal update are brought to one size, by a running mean (Li et al. 2025, "NorMuon")."""

    def _apply(self, p: Tensor, update: Tensor, lr: float, scale: float, decay: float) -> None:
        squares = update.square().mean(dim=1, keepdim=True)
        second = self.state[p].setdefault("second", torch.zeros_like(squares)).lerp_(squares, 0.05)
        normed = update / second.sqrt().clamp(min=1e-8)
        p.mul_(1 - lr * decay).add_(normed * (update.norm() / normed.norm().clamp(min=1e-8)), alpha=-scale)


def ours(config: ModelConfig, seed: int) -> KeyLM:
    """The product's first weights: zero outputs, and heads that copy."""
    return init_model(config, seed)


def ordinary(config: ModelConfig, seed: int) -> KeyLM:
    """Normal weights of 0.02; what a layer writes is scaled down by the square root of the depth (as in GPT-2)."""
    return _normal(config, seed, 1 / math.sqrt(2 * config.num_hidden_layers))


def zero_outputs(config: ModelConfig, seed: int) -> KeyLM:
    """Normal weights of 0.02; what a layer writes is zero."""
    return _normal(config, seed, 0.0)


@torch.no_grad()
def _normal(config: ModelConfig, seed: int, outputs: float) -> KeyLM:
    model, generator = KeyLM(config), torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02, generator=generator)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_(outputs)
    return model


@dataclass(frozen=True)
class Variant:
    """What is changed: settings of `stages`, the first weights, the trainer, Muon, the share of the tokens."""

    settings: dict[str, Any] = field(default_factory=dict)
    weights: Callable[[ModelConfig, int], KeyLM] = ours
    trainer: type[Trainer] = Trainer
    muon: type[Muon] = Muon
    share: float = 1.0


def variants() -> dict[str, Variant]:
    """Everything that can be asked for, by name."""
    found = {
        "default": Variant(),
        "default-0.7": Variant(share=0.7),
        "default-0.5": Variant(share=0.5),
        "ordinary-weights": Variant(weights=ordinary),
        "zero-outputs": Variant(weights=zero_outputs),
        "one-adamw-rate": Variant({f"optimizer.learning_rates.{role}": 1e-3 for role in ROLES[1:]}),
        "cosine": Variant({"decay": "cosine", "decay_fraction": 0.98}),
        "decay-0.2": Variant({"decay_fraction": 0.2}),
        "decay-0.98": Variant({"decay_fraction": 0.98}),
        "decay-0.2-average": Variant({"decay_fraction": 0.2}, trainer=Averaging),
        "average": Variant(trainer=Averaging),
        "ramp": Variant(trainer=Ramp),
        "weight-decay": Variant({"optimizer.weight_decay": 0.3}),
        "weight-decay-cautious": Variant({"optimizer.weight_decay": 0.3}, muon=CautiousMuon),
        "normalised": Variant(muon=NormalisedMuon),
    }
    for scale in (0.5, 2.0):
        found[f"scale-{scale:g}"] = Variant({"optimizer.learning_rate_scale": scale})
    for rate in RATES:
        same = {f"optimizer.learning_rates.{role}": rate for role in ROLES}
        found[f"adamw-{rate:g}"] = Variant(ADAMW | same, ordinary)
        found[f"adamw-our-weights-{rate:g}"] = Variant(ADAMW | same)
    return found


def main() -> None:
    """Train what is missing."""
    options = _options()
    recipe = load_recipe(options.data / "recipe.yaml", options.set)
    run, results = Run(options.data, recipe), options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.variants or list(variants()):
        for seed in options.seeds:
            if not any((row["variant"], row["seed"]) == (name, seed) for row in rows.read_metrics(results)):
                row = {"variant": name, "seed": seed} | _train(run, options, name, seed)
                print(row, flush=True)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _train(run: Run, options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Train one variant; say what was measured."""
    variant = variants()[name]
    common = {
        "tokens": round(options.tokens * variant.share),
        "batch_tokens": options.batch,
        "micro_batch_tokens": options.batch,
        "validation_every": 1.0,
        "validation_bytes": VALIDATION_BYTES,
    }
    training = _changed(run.recipe.train, common | variant.settings)
    run = Run(run.folder, run.recipe.model_copy(update={"seed": seed, "train": training}))
    folder = options.out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    names = [source.name for source in available_sources(run, "pretrain")]
    stores = {name: open_store(run, "pretrain", name, "validation") for name in names}
    with _muon(variant.muon):
        trainer = variant.trainer(
            folder=folder,
            model=variant.weights(run.recipe.model, seed).train(),
            training=training,
            loader=make_loader(run, "pretrain"),
            data="",
            validation=Validation(stores, VALIDATION_BYTES, training.sequence_length),
            world=init_distributed(training.timeout_seconds),
        )
    trainer.run()
    scores = [row["validation"] for row in rows.read_metrics(folder / "metrics.jsonl") if "validation" in row][-1]
    weights = {source.name: source.weight for source in run.recipe.data.sources}
    total = sum(weights[source] * score for source, score in scores.items())
    return {
        "parameters": num_matmul_parameters(run.recipe.model),
        "tokens": training.tokens,
        "batch": options.batch,
        "bits_per_byte": round(total / sum(weights[source] for source in scores), 5),
        "by_source": scores,
        "seconds": round(trainer.seconds),
    }


@contextmanager
def _muon(kind: type[Muon]) -> Iterator[None]:
    """Have the optimizer take another Muon."""
    original = optimizer.Muon
    optimizer.Muon = kind  # type: ignore[misc]
    try:
        yield
    finally:
        optimizer.Muon = original  # type: ignore[misc]


def _changed(base: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """`base` with dotted keys changed, checked as a recipe is."""
    values = base.model_dump()
    for key, value in changes.items():
        *parents, last = key.split(".")
        part = values
        for parent in parents:
            part = part[parent]
        part[last] = value
    return TrainConfig.model_validate(values)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", help="names; all by default")
    parser.add_argument("--tokens", type=float, default=655_360, help="tokens of a run")
    parser.add_argument("--batch", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, such as model.hidden_size=128")
    return parser.parse_args()


if __name__ == "__main__":
    main()
