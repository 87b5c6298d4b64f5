"""Training: pretraining on a mixture of text, and SFT on conversations, by the same loop."""

from __future__ import annotations

from typing import Any

from keylm.common.errors import UserError
from keylm.data.loading.loader import Loader
from keylm.data.loading.mixture import Mixture
from keylm.data.loading.packing import ConcatSequences, PackedSequences, Sequences
from keylm.data.prepare.outputs import available_sources, open_store
from keylm.data.prepare.token_store import TokenStore
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM, load_model
from keylm.recipe import fingerprint
from keylm.recipe.sources import SourceConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train.distributed import init_distributed
from keylm.train.trainer import Trainer
from keylm.train.validation import Validation


def run_pretrain(run: Run) -> dict[str, Any]:
    """Train from fresh weights on the mixture of `data.sources`."""
    return _train(run, "pretrain", init_model(run.recipe.model, run.recipe.seed))


def run_sft(run: Run) -> dict[str, Any]:
    """Train the pretrained weights on what the assistant says in `run_sft.sources`."""
    return _train(run, "sft", load_model(run.recipe.model, run.weights("pretrain")).train())


def make_loader(run: Run, stage: str) -> Loader:
    """The batches of `run_pretrain` or `run_sft`.

    Raises:
        UserError: a source has nothing to train on.
    """
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    blocks: dict[str, Sequences] = {
        source.name: _blocks(run, stage, source, training)
        for source in available_sources(run, stage)
        if _is_used(source, training)
    }
    curriculum = Mixture(
        num_blocks={name: cut.num_blocks for name, cut in blocks.items()},
        weights={source.name: source.weight for source in sources},
        categories={source.name: source.category for source in sources},
        max_epochs={source.name: source.max_epochs for source in sources if source.max_epochs},
        phases=training.phases,
        num_steps=training.num_steps,
        batch_tokens=training.batch_tokens,
        sequence_length=training.sequence_length,
        seed=run.recipe.seed,
    )
    return Loader(curriculum, blocks, _padding(run), training.intra_document_masking)


def _train(run: Run, stage: str, model: KeyLM) -> dict[str, Any]:
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    world = init_distributed(training.timeout_seconds)
    trainer = Trainer(
        folder=run.stage(stage),
        model=model,
        training=training,
        loader=make_loader(run, stage),
        data=_data_fingerprint(run, stage),
        validation=_validation(run, training),
        world=world,
    )
    trainer.run()
    return {
        "tokens": training.num_steps * training.batch_tokens,
        "steps": training.num_steps,
        "skipped_steps": trainer.skipped,
        "ranks": world.size,
        "training_seconds": round(trainer.seconds, 3),
        "compute_dtype": str(model.compute_dtype).removeprefix("torch."),
        "mixture": _mixture(trainer.loader.mixture, sources, training),
    }


def _is_used(source: SourceConfig, training: TrainConfig) -> bool:
    return source.weight > 0 or any(phase.weights.get(source.name, 0) > 0 for phase in training.phases)


def _blocks(run: Run, stage: str, source: SourceConfig, training: TrainConfig) -> Sequences:
    blocks = _cut(open_store(run, stage, source.name, "train"), training, conversations=stage == "sft")
    if not blocks.num_blocks:
        raise UserError(f"source `{source.name}` of {stage} is empty after preparation: give it text, or weight 0")
    return blocks


def _cut(store: TokenStore, training: TrainConfig, conversations: bool) -> Sequences:
    if training.packing == "concat":
        return ConcatSequences(store, training.sequence_length)
    return PackedSequences(store, training.sequence_length, conversations)


def _padding(run: Run) -> int:
    return Tokenizer.load(run.stage("tokenizer")).end_of_text


def _validation(run: Run, training: TrainConfig) -> Validation:
    """In SFT too it is the pretraining text that is held out: what tuning forgets is seen here."""
    names = [source.name for source in available_sources(run, "pretrain")]
    stores = {name: open_store(run, "pretrain", name, "validation") for name in names}
    return Validation(stores, training.validation_bytes, training.sequence_length)


def _data_fingerprint(run: Run, stage: str) -> str:
    """Stands for the tokens and for the order in which they come."""
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    names = [source.name for source in available_sources(run, stage)]
    stores = {name: open_store(run, stage, name, "train").fingerprint for name in names}
    mixture = {source.name: (source.weight, source.category, source.max_epochs) for source in sources}
    lengths = [training.num_steps, training.batch_tokens, training.sequence_length]
    return fingerprint(stores, mixture, lengths, training.packing, training.phases, run.recipe.seed)


def _mixture(curriculum: Mixture, sources: list[SourceConfig], training: TrainConfig) -> dict[str, dict[str, float]]:
    """Shares of tokens asked for and realised, by source."""
    drawn, total = curriculum.tokens(), training.num_steps * training.batch_tokens
    return {
        name: {"asked": asked, "realised": drawn.get(name, 0) / total, "tokens": drawn.get(name, 0)}
        for name, asked in _asked(sources, training).items()
    }


def _asked(sources: list[SourceConfig], training: TrainConfig) -> dict[str, float]:
    """Shares that the recipe asks for, over all phases."""
    own = {source.name: source.weight for source in sources}
    shares = dict.fromkeys(own, 0.0)
    start = 0.0
    for until, weights in [(phase.until, phase.weights) for phase in training.phases] or [(1.0, {})]:
        mixed = {**own, **weights}
        for name, weight in mixed.items():
            shares[name] += (until - start) * weight / sum(mixed.values())
        start = until
    return shares
