"""Training: pretraining on a mixture of text, and SFT on conversations, by the same loop."""

from __future__ import annotations

from typing import Any

from keylm import initial
from keylm import model as models
from keylm.data import prepared
from keylm.data.batches import Blocks, Loader, PackedBlocks, StreamBlocks
from keylm.data.curriculum import Curriculum
from keylm.data.store import TokenStore
from keylm.errors import UserError
from keylm.model import KeyLM
from keylm.recipe import Source, Training, fingerprint
from keylm.run import Run
from keylm.tokenizer import Tokenizer
from keylm.train import distributed
from keylm.train.loop import Trainer
from keylm.train.validation import Validation


def pretrain(run: Run) -> dict[str, Any]:
    """Train from fresh weights on the mixture of `data.sources`."""
    return _train(run, "pretrain", initial.create(run.recipe.model, run.recipe.seed))


def sft(run: Run) -> dict[str, Any]:
    """Train the pretrained weights on what the assistant says in `sft.sources`."""
    return _train(run, "sft", models.load(run.recipe.model, run.weights("pretrain")).train())


def loader(run: Run, stage: str) -> Loader:
    """The batches of `pretrain` or `sft`.

    Raises:
        UserError: a source has nothing to train on.
    """
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    blocks: dict[str, Blocks] = {
        source.name: _blocks(run, stage, source, training)
        for source in prepared.sources(run, stage)
        if _is_used(source, training)
    }
    curriculum = Curriculum(
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
    return Loader(curriculum, blocks, _padding(run), training.mask_documents)


def _train(run: Run, stage: str, model: KeyLM) -> dict[str, Any]:
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    world = distributed.join(training.timeout_seconds)
    trainer = Trainer(
        folder=run.stage(stage),
        model=model,
        training=training,
        loader=loader(run, stage),
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
        "mixture": _mixture(trainer.loader.curriculum, sources, training),
    }


def _is_used(source: Source, training: Training) -> bool:
    return source.weight > 0 or any(phase.weights.get(source.name, 0) > 0 for phase in training.phases)


def _blocks(run: Run, stage: str, source: Source, training: Training) -> Blocks:
    blocks = _cut(prepared.store(run, stage, source.name, "train"), training, conversations=stage == "sft")
    if not blocks.num_blocks:
        raise UserError(f"source `{source.name}` of {stage} is empty after preparation: give it text, or weight 0")
    return blocks


def _cut(store: TokenStore, training: Training, conversations: bool) -> Blocks:
    if training.packing == "stream":
        return StreamBlocks(store, training.sequence_length)
    return PackedBlocks(store, training.sequence_length, conversations)


def _padding(run: Run) -> int:
    return Tokenizer.load(run.stage("tokenizer")).end_of_text


def _validation(run: Run, training: Training) -> Validation:
    """In SFT too it is the pretraining text that is held out: what tuning forgets is seen here."""
    names = [source.name for source in prepared.sources(run, "pretrain")]
    stores = {name: prepared.store(run, "pretrain", name, "validation") for name in names}
    return Validation(stores, training.validation_bytes, training.sequence_length)


def _data_fingerprint(run: Run, stage: str) -> str:
    """Stands for the tokens and for the order in which they come."""
    training, sources = run.recipe.training(stage), run.recipe.sources_of(stage)
    names = [source.name for source in prepared.sources(run, stage)]
    stores = {name: prepared.store(run, stage, name, "train").fingerprint for name in names}
    mixture = {source.name: (source.weight, source.category, source.max_epochs) for source in sources}
    lengths = [training.num_steps, training.batch_tokens, training.sequence_length]
    return fingerprint(stores, mixture, lengths, training.packing, training.phases, run.recipe.seed)


def _mixture(curriculum: Curriculum, sources: list[Source], training: Training) -> dict[str, dict[str, float]]:
    """Shares of tokens asked for and realised, by source."""
    drawn, total = curriculum.tokens(), training.num_steps * training.batch_tokens
    return {
        name: {"asked": asked, "realised": drawn.get(name, 0) / total, "tokens": drawn.get(name, 0)}
        for name, asked in _asked(sources, training).items()
    }


def _asked(sources: list[Source], training: Training) -> dict[str, float]:
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
