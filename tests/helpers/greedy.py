"""Greedy decoding of another program, compared with that of transformers."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def num_equal(model: PreTrainedModel, prompt: list[int], written: list[int]) -> int:
    """Number of leading tokens of `written` that are the model's greedy choice.

    Counting stops at the first other choice, which must be a near tie: the logits may differ by no more than the
    rounding of F16 activations.
    """
    with torch.no_grad():
        logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    for count, (token, row) in enumerate(zip(written, logits, strict=True)):
        regret = (row.max() - row[token]).item()
        assert regret < 2e-2 * row.std().item()
        if regret > 0:
            return count
    return len(written)
