"""llama.cpp as a library, set up for exactness rather than speed: for checks of GGUF files and for their answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keylm.common.console import progress
from keylm.common.errors import KeyLMError
from keylm.common.hardware import physical_cores
from keylm.inference.answers import Answer

_NUM_SLOTS = 16
"""Answers generated at the same time; 32 or 64 at a time take as long."""


def exact_server(path: Path, num_slots: int = 1, context_length: int | None = None, num_threads: int = 1) -> Any:
    """Load a GGUF file into an `xllamacpp.Server` that computes attention and its KV cache in float32.

    Args:
        path: The GGUF file.
        num_slots: Requests that are processed at the same time.
        context_length: Tokens per request (default: the model's context length).
        num_threads: CPU threads.

    Raises:
        RuntimeError: llama.cpp cannot load the file.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = num_slots
    params.n_ctx = num_slots * (context_length or 0)  # llama.cpp divides n_ctx among the slots.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.verbosity = -1
    params.ui = False
    # Flash attention on CPUs rounds to float16, and so does the default cache.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    # Destroying a server whose loop does not run yet can hang. A reply shows that it runs.
    server.handle_metrics()
    return server


@dataclass
class LlamaCppGenerator:
    """Continues prompts of token ids with a GGUF model (`keylm.inference.generator.Generator`).

    Args:
        path: The GGUF file.
        context_length: Tokens of prompt and answer together.
        repetition_penalty: Lowers the logits of tokens that occur in the prompt or the answer; 1 does not.

    Raises:
        KeyLMError: llama.cpp cannot load the file.
    """

    path: Path
    context_length: int
    repetition_penalty: float = 1.0
    _server: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the file."""
        try:
            self._server = exact_server(self.path, _NUM_SLOTS, self.context_length, physical_cores())
        except RuntimeError as error:
            raise KeyLMError(
                f"llama.cpp cannot load {self.path}: the file is damaged, or there is not enough memory"
            ) from error

    def greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Answer]:
        """Continue each prompt with the most likely token at every step (`Generator.greedy`).

        Raises:
            KeyLMError: llama.cpp rejects a prompt.
        """
        with ThreadPoolExecutor(_NUM_SLOTS) as threads, progress("answers", len(prompts), "answers") as bar:

            def answer(prompt: Sequence[int]) -> Answer:
                completed = self._complete(prompt, max_new_tokens, stop)
                bar.advance()
                return completed

            return list(threads.map(answer, prompts))

    def _complete(self, prompt: Sequence[int], max_new_tokens: int, stop: Sequence[str]) -> Answer:
        max_tokens = min(max_new_tokens, self.context_length - len(prompt))
        if max_tokens <= 0:
            return Answer("", ended=False)
        request = {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "stream": False,
            "stop": list(stop),
            "temperature": 0.0,
            # The file's own penalty would apply otherwise, and to the last 64 tokens only.
            "repeat_penalty": self.repetition_penalty,
            "repeat_last_n": self.context_length,
            "cache_prompt": False,  # A cached prefix changes rounding with the order in which prompts arrive.
        }
        responses: list[dict[str, Any]] = []
        self._server.handle_completions(request, responses.append)
        response = responses[0]
        if "choices" not in response:
            raise KeyLMError(f"llama.cpp rejects a prompt of {len(prompt)} tokens: {response}")
        choice = response["choices"][0]
        return Answer(choice["text"], ended=choice["finish_reason"] != "length")
