"""The scaling law of `docs/scaling.md`: bits per byte of held-out text by size and length of training.

Its form is that of Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", with constants fitted to 17
KeyLM runs. Text that is read several times, and weights that so little text cannot fill, count less, as in Muennighoff
et al. 2023, "Scaling Data-Constrained Language Models".
"""

from __future__ import annotations

import math

_FLOOR = 1.158
_SIZE_FACTOR, _SIZE_EXPONENT = 64.9, 0.400
_TOKEN_FACTOR, _TOKEN_EXPONENT = 59.4, 0.326
_REPEATED_TOKENS, _EXCESS_PARAMETERS = 15.39, 5.31
"""Repetitions after which further ones are worth 1/e of new text, or of parameters that have text to learn."""


def predict_bits_per_byte(parameters: float, tokens: float, unique_tokens: float) -> float:
    """Bits per byte of held-out text that training is expected to reach.

    Args:
        parameters: Weights that every token is multiplied with (`num_matmul_parameters`).
        tokens: Tokens of training.
        unique_tokens: How many of them differ; the others repeat them.
    """
    unique_tokens = min(unique_tokens, tokens)
    optimal = min(parameters, _optimal_parameters(unique_tokens))
    size = _saturate(parameters, optimal, _EXCESS_PARAMETERS)
    length = _saturate(tokens, unique_tokens, _REPEATED_TOKENS)
    return _FLOOR + _SIZE_FACTOR / math.pow(size, _SIZE_EXPONENT) + _TOKEN_FACTOR / math.pow(length, _TOKEN_EXPONENT)


def _optimal_parameters(tokens: float) -> float:
    """The size for which these tokens are as many as a fixed number of operations asks for."""
    ratio = _SIZE_EXPONENT * _SIZE_FACTOR / (_TOKEN_EXPONENT * _TOKEN_FACTOR)
    return math.pow(ratio * tokens**_TOKEN_EXPONENT, 1 / _SIZE_EXPONENT)


def _saturate(amount: float, useful: float, scale: float) -> float:
    """What `amount` is worth if only `useful` of it is new, and what exceeds it loses its worth exponentially."""
    return useful + useful * scale * (1 - math.exp(-(amount / useful - 1) / scale))
