"""`train`: the settings of the training loop, which pretraining and SFT share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from keylm.recipe.base import Config, Count, PositiveCount
from keylm.recipe.optimizer import OptimizerConfig
from keylm.recipe.sources import SourceConfig


class PhaseConfig(Config):
    """A phase of training with its own mixture weights."""

    until: float = Field(gt=0, le=1)
    """Fraction of training at which the phase ends."""
    weights: dict[str, float] = {}
    """Weight by source name; sources that are not listed keep their own weight."""
    sequence_length: PositiveCount | None = None
    """Tokens per sequence in this phase; must divide the section's `sequence_length`, which is the default."""


class TrainConfig(Config):
    """Settings of the training loop, for pretraining. SFT has the same, with other defaults."""

    renamed_keys: ClassVar[dict[str, str]] = {
        "gradient_clip": "max_grad_norm",
        "max_gradient_norm": "skip_grad_norm",
        "mask_documents": "intra_document_masking",
        "keep_checkpoints": "keep_last",
        "keep_every": "permanent_every",
    }
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {"packing": {"stream": "concat", "documents": "best_fit"}}

    tokens: PositiveCount = 10_000_000
    """Length of training, in tokens; rounded up to whole steps."""
    batch_tokens: PositiveCount = 4096
    """Tokens per optimizer step, over all ranks."""
    sequence_length: PositiveCount = 1024
    """Tokens per sequence."""
    micro_batch_tokens: PositiveCount = 4096
    """Tokens per forward pass on one rank. Lower it if you run out of memory; the data of a step stay the same."""
    warmup_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Fraction of the steps over which the learning rate rises linearly."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Fraction of the steps, at the end, over which the learning rate decays to zero."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of the decay: linear, or half a cosine period (Loshchilov and Hutter 2017)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping: a gradient with a larger global norm is scaled down to this norm."""
    skip_grad_norm: float = Field(default=1000.0, gt=0)
    """Global norm, before clipping, above which the gradient is considered exploded and the step is skipped."""
    max_skipped_steps: Count = 10
    """Steps that may be skipped (non-finite loss or exploded gradient) before training stops."""
    packing: Literal["concat", "best_fit"] = "concat"
    """`concat`: documents are concatenated and cut every `sequence_length` tokens. `best_fit`: sequences are filled
    with whole documents (best-fit packing)."""
    intra_document_masking: bool = False
    """Restrict attention to the document. If false, tokens attend to everything before them in the sequence."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the matrix products; `auto` is bfloat16 where the processor has instructions for it. Weights, gradients
    and optimizer state are always float32."""
    deterministic: bool = False
    """Give the same bits in every run on one GPU, and after every resume, at some cost in speed. CPUs always do."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer and its learning rates."""
    phases: list[PhaseConfig] = []
    """The curriculum: mixture weights by phase of training. Empty: the sources' weights throughout."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints; one is always written at the end and on Ctrl-C."""
    keep_last: PositiveCount = 2
    """Number of earlier checkpoints kept besides the latest."""
    permanent_every: Count = 0
    """Save a checkpoint that is never deleted every so many steps (0: never)."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every rank holds the whole model. `fsdp`: every rank holds a shard, for models that would fill a GPU."""
    timeout_seconds: float = Field(default=600.0, gt=0)
    """Seconds without a message from another rank after which a rank gives up; must exceed the slowest step."""
    validation_bytes: Count = 200_000
    """Bytes of each source's validation text that are scored (0: none)."""
    validation_every: float = Field(default=0.25, gt=0, le=1)
    """Fraction of training between two validations."""

    @model_validator(mode="after")
    def _check_lengths(self) -> TrainConfig:
        if self.batch_tokens % self.sequence_length:
            raise ValueError("batch_tokens must be a multiple of sequence_length")
        if self.micro_batch_tokens % self.sequence_length:
            raise ValueError("micro_batch_tokens must be a multiple of sequence_length")
        ends = [phase.until for phase in self.phases]
        if ends != sorted(set(ends)) or (ends and ends[-1] != 1.0):
            raise ValueError("phases must have rising `until`, the last of them 1.0")
        # Data are ordered in blocks of `sequence_length`, which a phase with shorter sequences cuts into equal parts.
        for length in {phase.sequence_length or self.sequence_length for phase in self.phases}:
            if self.sequence_length % length:
                raise ValueError(f"a phase's sequence_length of {length} must divide {self.sequence_length}")
            if length < self.sequence_length and self.packing == "best_fit":
                raise ValueError("a phase's own sequence_length needs `packing: concat`: best_fit packs for one length")
        return self

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return -(-self.tokens // self.batch_tokens)


def check_phases(section: str, phases: list[PhaseConfig], sources: list[SourceConfig]) -> None:
    """Check the phases of a recipe's `section` against its sources.

    Raises:
        ValueError: a phase names an unknown source or has a negative weight.
    """
    known = {source.name for source in sources}
    for phase in phases:
        unknown = sorted(set(phase.weights) - known)
        if unknown:
            raise ValueError(f"{section}.phases names `{unknown[0]}`, which is not one of its sources")
        if min(phase.weights.values(), default=0) < 0:
            raise ValueError(f"{section}.phases has a negative weight")


def requested_shares(sources: Sequence[SourceConfig], phases: Sequence[PhaseConfig]) -> dict[str, float]:
    """Share of the tokens that the recipe asks of each source, over all phases.

    By the recipe alone: a missing or exhausted source still counts, so that the report shows what it did not give.
    """
    own_weights = {source.name: source.weight for source in sources}
    shares = dict.fromkeys(own_weights, 0.0)
    start = 0.0
    for phase in phases or [PhaseConfig(until=1.0)]:
        weights = {**own_weights, **phase.weights}
        for name, weight in weights.items():
            shares[name] += (phase.until - start) * weight / sum(weights.values())
        start = phase.until
    return shares
