"""lm_eval's adapter for transformers, with likelihoods by our own model, which computes a shared question once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from keylm.evaluate.likelihoods import log_likelihoods
from keylm.model import KeyLM
from keylm.screen import progress


class NativeLM(HFLM):  # type: ignore[misc]
    """Encodes, truncates and generates as `HFLM` does; only what scores given answers is ours.

    Args:
        native: the model.
        options: those of `HFLM`, which generates with the same weights in transformers.
    """

    def __init__(self, native: KeyLM, **options: Any) -> None:
        super().__init__(**options)
        self._native = native

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(question, answer) for _, question, answer in requests]
        with progress("likelihoods", len(pairs), "answers") as bar:
            return log_likelihoods(self._native, pairs, advance=bar.advance)
