"""lm_eval's adapter for transformers, with greedy answers written by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from keylm.inference.generator import LlamaCppGenerator


class LlamaCppLM(HFLM):  # type: ignore[misc]
    """Encodes and scores as `HFLM` does; only what writes greedy answers is llama.cpp.

    Args:
        load_writer: loads the same weights in llama.cpp; called where a task asks for answers, and not before.
        options: those of `HFLM`.
    """

    def __init__(self, load_writer: Callable[[], LlamaCppGenerator], **options: Any) -> None:
        super().__init__(**options)
        self._load_writer = load_writer

    @cached_property
    def _writer(self) -> LlamaCppGenerator:
        return self._load_writer()

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each request; what is not greedy is left to `HFLM`."""
        settings = [normalize_gen_kwargs(request.args[1], self.max_gen_toks) for request in requests]
        if any(each["do_sample"] or each != settings[0] for each in settings):
            return list(super().generate_until(requests, disable_tqdm))
        limit = settings[0]["max_gen_toks"]
        prompts = [
            self.tok_encode(request.args[0], left_truncate_len=self.max_length - limit, add_special_tokens=False)
            for request in requests
        ]
        answers = self._writer.write(prompts, limit, handle_stop_sequences(settings[0].get("until"), eos=None))
        return [answer.text for answer in answers]
