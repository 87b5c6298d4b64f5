"""The stages `pretrain` and `sft`: what the training loop needs from a run, and what it leaves there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from keylm.common.errors import UserError
from keylm.data.loading.loader import Loader
from keylm.data.loading.mixture import Mixture
from keylm.data.loading.packing import ConcatSequences, PackedSequences, Sequences
from keylm.data.loading.prefetch import PrefetchLoader
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.data.prepare.token_store import TokenStore
from keylm.inference.generator import generator_of_weights
from keylm.inference.samples import Sample, sample_held_out
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM, load_model
from keylm.recipe import fingerprint
from keylm.recipe.sources import SourceConfig
from keylm.recipe.train import TrainConfig, requested_shares
from keylm.run import IMPORTED, Run
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train.distributed import init_distributed
from keylm.train.trainer import Trainer
from keylm.train.validation import validation_on_answers, validation_on_text

_SAMPLE_TOKENS = 60
"""Tokens of what the model writes while it is trained."""


def run_pretrain(run: Run) -> dict[str, Any]:
    """Train on the mixture of `data.sources`, from fresh or imported weights; returns the stage's metadata."""
    if run.imported_from("tokenizer"):
        if not run.is_finished(IMPORTED):
            raise UserError(f"{run.folder} has no imported weights: import the model again, into another run folder")
        return _train(run, "pretrain", load_model(run.recipe.model, run.verified_weights(IMPORTED)).train())
    return _train(run, "pretrain", init_model(run.recipe.model, run.recipe.seed))


def run_sft(run: Run) -> dict[str, Any]:
    """Train the pretrained weights on the assistant's turns in `sft.sources`; returns the stage's metadata."""
    return _train(run, "sft", load_model(run.recipe.model, run.verified_weights("pretrain")).train())


def make_loader(run: Run, stage: str) -> Loader:
    """Create the loader of `pretrain` or `sft`.

    Raises:
        UserError: a source has nothing to train on.
    """
    config, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    sequences: dict[str, Sequences] = {}
    for source in available_sources(run, stage):
        # A source that starts with weight 0 may get one in a later phase.
        is_used = source.weight > 0 or any(phase.weights.get(source.name, 0) > 0 for phase in config.phases)
        if is_used:
            sequences[source.name] = _cut_into_sequences(run, stage, source, config)
    mixture = Mixture(
        num_blocks={name: part.num_blocks for name, part in sequences.items()},
        weights={source.name: source.weight for source in sources},
        categories={source.name: source.category for source in sources},
        max_epochs={source.name: source.max_epochs for source in sources if source.max_epochs},
        phases=config.phases,
        num_steps=config.num_steps,
        batch_tokens=config.batch_tokens,
        sequence_length=config.sequence_length,
        seed=run.recipe.seed,
    )
    padding = Tokenizer.load(run.stage("tokenizer")).end_of_text
    return Loader(mixture, sequences, padding, config.intra_document_masking)


def _cut_into_sequences(run: Run, stage: str, source: SourceConfig, config: TrainConfig) -> Sequences:
    store = open_store(run, stage, source.name, "train")
    # Cutting across documents wastes nothing; packing whole ones keeps questions and answers together.
    sequences = (
        ConcatSequences(store, config.sequence_length)
        if config.packing == "concat"
        else PackedSequences(store, config.sequence_length, conversations=stage == "sft")
    )
    if not sequences.num_blocks:
        raise UserError(
            f"source `{source.name}` of {stage} has nothing to train on within its sequence_length "
            f"({config.sequence_length:,} tokens): raise it, give the source other text, or weight 0"
        )
    return sequences


def _train(run: Run, stage: str, model: KeyLM) -> dict[str, Any]:
    config = run.recipe.training(stage)
    dist = init_distributed(config.timeout_seconds)
    # SFT too is validated on pretraining text, which shows what it forgets.
    text, conversations = _validation_stores(run, "pretrain"), _validation_stores(run, "sft") if stage == "sft" else {}
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    num_bytes, length = config.validation_bytes, config.sequence_length
    loader = make_loader(run, stage)
    with closing(PrefetchLoader(loader, config.num_steps)) as prefetch:
        trainer = Trainer(
            folder=run.stage(stage),
            model=model,
            config=config,
            loader=prefetch,
            data_fingerprint=_data_fingerprint(run, stage),
            text=validation_on_text(text, num_bytes, length),
            answers=validation_on_answers(conversations, tokenizer, num_bytes, length),
            sample=partial(_sample, run, stage),
            dist=dist,
        )
        trainer.run()
    total_tokens = config.num_steps * config.batch_tokens
    drawn_tokens = loader.mixture.tokens()
    return {
        "tokens": total_tokens,
        "steps": config.num_steps,
        "skipped_steps": trainer.num_skipped,
        "ranks": dist.world_size,
        "training_seconds": round(trainer.seconds, 3),
        "compute_dtype": str(model.compute_dtype).removeprefix("torch."),
        "mixture": {
            name: {
                "requested": share,
                "realized": drawn_tokens.get(name, 0) / total_tokens,
                "tokens": drawn_tokens.get(name, 0),
            }
            for name, share in requested_shares(run.recipe.sources_of(stage), config.phases).items()
        },
    }


def _validation_stores(run: Run, stage: str) -> dict[str, TokenStore]:
    names = [source.name for source in available_sources(run, stage)]
    return {name: open_store(run, stage, name, "validation") for name in names}


def _sample(run: Run, stage: str, weights: Mapping[str, Tensor]) -> Sample | None:
    """What weights in training make of the first held-out prompt; None if there is none."""
    # Its own random numbers and a copy of the weights: training goes on as if nothing had been asked.
    generator = replace(generator_of_weights(run, weights), shows_progress=False)
    return next(iter(sample_held_out(run, generator, stage, 1, _SAMPLE_TOKENS)), None)


def _data_fingerprint(run: Run, stage: str) -> str:
    """Fingerprint of the tokens and of everything that determines their order."""
    # A checkpoint says only how many steps are done: in another order, the rest would repeat and skip text unnoticed.
    config, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    stores = {
        source.name: open_store(run, stage, source.name, "train").fingerprint
        for source in available_sources(run, stage)
    }
    mixture = {source.name: (source.weight, source.category, source.max_epochs) for source in sources}
    lengths = [config.num_steps, config.batch_tokens, config.sequence_length]
    return fingerprint(stores, mixture, lengths, config.packing, config.phases, run.recipe.seed)
