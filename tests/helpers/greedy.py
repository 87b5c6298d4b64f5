"""What another program wrote, held against transformers' choices."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def num_equal(model: PreTrainedModel, prompt: list[int], written: list[int]) -> int:
    """How many tokens of `written` are the model's likeliest, up to the first choice between two that lie closer than
    the rounding of F16 activations; a choice that is further off fails the test."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    for count, (token, row) in enumerate(zip(written, logits, strict=True)):
        regret = (row.max() - row[token]).item()
        assert regret < 2e-2 * row.std().item()
        if regret > 0:
            return count
    return len(written)
