"""A run's weights for lm_eval: likelihoods by our own model, which computes a shared question once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keylm.common.console import progress
from keylm.evaluate.likelihoods import log_likelihoods
from keylm.evaluate.lm_eval_adapter import LlamaCppLM
from keylm.inference.generator import LlamaCppGenerator
from keylm.model.transformer import KeyLM


class RunLM(LlamaCppLM):
    """Encodes and truncates as lm_eval's `HFLM` does; what scores given answers is ours.

    Args:
        native: the model.
        load_writer: loads the same weights in llama.cpp.
        options: those of `HFLM`, with the same weights in transformers.
    """

    def __init__(self, native: KeyLM, load_writer: Callable[[], LlamaCppGenerator], **options: Any) -> None:
        super().__init__(load_writer, **options)
        self._native = native

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(question, answer) for _, question, answer in requests]
        with progress("likelihoods", len(pairs), "answers") as bar:
            return log_likelihoods(self._native, pairs, advance=bar.advance)
