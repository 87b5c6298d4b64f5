"""The weights that a run's training stages end with, where they are computed with."""

from __future__ import annotations

from keylm.model.device import get_device
from keylm.model.transformer import KeyLM, load_model
from keylm.run import Run


def load_weights(run: Run, stage: str) -> KeyLM:
    """Load the final weights of a training stage, in float32, onto the GPU if there is one."""
    return load_model(run.recipe.model, run.verified_weights(stage)).to(get_device())
