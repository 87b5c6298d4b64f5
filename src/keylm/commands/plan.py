"""Which model fits a time: the size and the length of training for which the scaling law promises the best text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from keylm.model.flops import num_matmul_parameters
from keylm.model.scaling_law import predict_bits_per_byte
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig

_SIZES = ((128, 4, 2, 1), (192, 6, 3, 1), (256, 6, 4, 2), (384, 10, 6, 2), (512, 12, 8, 2), (512, 24, 8, 2))
"""Hidden size, layers, heads and key/value heads, from 1 to 75 million parameters."""
_MAX_EPOCHS, _MAX_SFT_EPOCHS = 16, 8
"""Text that is read more often is learned by heart, and adds little else (Muennighoff et al. 2023)."""
_SFT_FRACTION = 1 / 3
"""Share of the tokens that SFT gets, as in `recipes/quickstart.yaml`."""
_START_SECONDS = 20
"""What the tokenizer, `prepare` and the export take, whatever the model."""
_OTHER_FRACTION = 0.3
"""What validation, checkpoints and the evaluation take, as a fraction of the training steps: that of the quickstart."""
_MIN_TRAINING_SECONDS = 5
_MIN_STEPS = 50
_BATCHES = ((2048, 4_000_000), (4096, 16_000_000), (8192, math.inf))
"""Tokens per step for trainings of less than so many tokens: those of the shipped recipes, which are tuned."""
_NEGLIGIBLE = 0.005
"""Bits per byte that a larger model has to gain to be worth trying the next one."""


@dataclass(frozen=True)
class Data:
    """What the plan has to know of the data."""

    tokens: int
    """Tokens of the user's own text, and of conversations that pretraining reads."""
    share: float
    """Their share of the pretraining mixture; the rest is generated."""
    sft_tokens: int | None
    """Tokens of the user's own conversations; None if those of SFT are generated."""


@dataclass(frozen=True)
class Plan:
    """A model, and how long to train it."""

    model: ModelConfig
    tokens: int
    """Tokens of pretraining."""
    batch_tokens: int
    sft_tokens: int
    sft_batch_tokens: int
    tokens_per_second: float
    """Measured speed of training."""
    bits_per_byte: float
    """Of held-out text, as the scaling law predicts it."""

    @property
    def seconds(self) -> float:
        """Expected time of all stages."""
        training = (self.tokens + self.sft_tokens) / self.tokens_per_second
        return _START_SECONDS + training * (1 + _OTHER_FRACTION)


def make_plan(
    data: Data,
    vocab_size: int,
    sequence_length: int,
    minutes: float,
    measure: Callable[[ModelConfig, TrainConfig], float],
) -> Plan:
    """The plan with the lowest predicted bits per byte among those that fit the time.

    Args:
        data: What there is to train on.
        vocab_size: Tokens of the vocabulary.
        sequence_length: Tokens per sequence; 512, 1,024 or 2,048.
        minutes: Time for all stages.
        measure: Measures the seconds per token of a training step.
    """
    seconds = max(_MIN_TRAINING_SECONDS, (60 * minutes - _START_SECONDS) / (1 + _OTHER_FRACTION))
    best = None
    # Upwards, so that sizes far beyond the time are never measured, which would take longer than the training.
    for hidden_size, layers, heads, key_value_heads in _SIZES:
        model = ModelConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            intermediate_size=hidden_size * 5 // 2,
            max_position_embeddings=sequence_length,
        )
        plan = _plan_size(model, data, seconds, measure)
        if best and plan.bits_per_byte > best.bits_per_byte - _NEGLIGIBLE:
            break
        best = plan
    assert best
    return best


def epochs(plan: Plan, data: Data) -> float:
    """How often pretraining reads the user's own text."""
    return plan.tokens * data.share / data.tokens


def _plan_size(
    model: ModelConfig, data: Data, seconds: float, measure: Callable[[ModelConfig, TrainConfig], float]
) -> Plan:
    """The plan for one size: as many tokens as the time allows and the text is good for."""
    length = model.max_position_embeddings
    step = TrainConfig(batch_tokens=2048, micro_batch_tokens=2048, sequence_length=length)
    tokens_per_second = 1 / measure(model, step)
    wanted = min(seconds * tokens_per_second * (1 - _SFT_FRACTION), _MAX_EPOCHS * data.tokens / data.share)
    wanted_sft = wanted * _SFT_FRACTION / (1 - _SFT_FRACTION)
    if data.sft_tokens is not None:
        wanted_sft = min(wanted_sft, _MAX_SFT_EPOCHS * data.sft_tokens)
    tokens, batch_tokens = _whole_steps(wanted, length)
    sft_tokens, sft_batch_tokens = _whole_steps(wanted_sft, length)
    unique = min(data.tokens, tokens * data.share) + tokens * (1 - data.share)
    return Plan(
        model=model,
        tokens=tokens,
        batch_tokens=batch_tokens,
        sft_tokens=sft_tokens,
        sft_batch_tokens=sft_batch_tokens,
        tokens_per_second=tokens_per_second,
        bits_per_byte=predict_bits_per_byte(num_matmul_parameters(model), tokens, unique),
    )


def _whole_steps(tokens: float, sequence_length: int) -> tuple[int, int]:
    """Tokens of a training in whole steps, at least `_MIN_STEPS`, and tokens per step."""
    batch_tokens = next(size for size, limit in _BATCHES if tokens < limit)
    if tokens < _MIN_STEPS * batch_tokens:
        # Steps as small as they can be: so little text needs them more than smooth gradients.
        batch_tokens = sequence_length
    return batch_tokens * max(_MIN_STEPS, round(tokens / batch_tokens)), batch_tokens
