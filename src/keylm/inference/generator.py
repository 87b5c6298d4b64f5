"""Batch generation with llama.cpp: on two cores several times as fast as transformers' `generate`.

Continuous batching: a finished answer makes room for the next prompt at once, and nothing is padded. Weights,
attention and KV cache stay in float32, so greedy answers equal those of transformers except where two tokens tie up to
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from keylm.common.console import progress
from keylm.common.errors import KeyLMError
from keylm.common.hardware import physical_cores
from keylm.inference.answers import Answer
from keylm.inference.llama_cpp import exact_server
from keylm.run import Run

if TYPE_CHECKING:
    from torch import Tensor

NUM_SLOTS = 16
"""Answers generated at the same time; 32 or 64 at a time take as long (docs/eval.md)."""

_GREEDY = {"temperature": 0.0}
# No truncation of the distribution. llama.cpp returns token ids in its verbose response only.
_SAMPLING = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "verbose": True, "return_tokens": True}


def generator_of_run(run: Run, stage: str) -> LlamaCppGenerator:
    """Load the final weights of a training stage into llama.cpp, in float32."""
    from safetensors.torch import load_file

    return generator_of_weights(run, load_file(run.weights(stage)))


def generator_of_weights(run: Run, weights: dict[str, Tensor]) -> LlamaCppGenerator:
    """Load weights of the run's architecture into llama.cpp, in float32."""
    from keylm.gguf.file import write_gguf

    # llama.cpp maps the file into memory, and the mapping outlives the deleted file.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(run, weights, "F32", path)
        return LlamaCppGenerator(path, run.recipe.model.max_position_embeddings)


@dataclass
class LlamaCppGenerator:
    """Continues prompts of token ids with a GGUF model.

    Args:
        path: The GGUF file.
        context_length: Tokens of prompt and answer together.

    Raises:
        KeyLMError: llama.cpp cannot load the file.
    """

    path: Path
    context_length: int
    _server: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the file."""
        try:
            self._server = exact_server(self.path, NUM_SLOTS, self.context_length, physical_cores())
        except RuntimeError as error:
            raise KeyLMError(
                f"llama.cpp cannot load {self.path}: the file is damaged, or there is not enough memory"
            ) from error

    def greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Answer]:
        """Continue each prompt with the most likely token at every step.

        Args:
            prompts: Token ids of each prompt.
            max_new_tokens: Token limit of an answer; a full context ends it earlier.
            stop: Strings that end an answer, besides the model's own end token.

        Raises:
            KeyLMError: llama.cpp rejects a prompt.
        """
        options = {**_GREEDY, "stop": list(stop)}
        with ThreadPoolExecutor(NUM_SLOTS) as threads, progress("answers", len(prompts), "answers") as bar:

            def answer(prompt: Sequence[int]) -> Answer:
                completed = self._complete(prompt, max_new_tokens, options)
                bar.advance()
                return completed

            return list(threads.map(answer, prompts))

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Continue each prompt with tokens sampled from the full distribution; the answers include their token ids.

        Args:
            prompts: Token ids of each prompt.
            max_new_tokens: Token limit of an answer; a full context ends it earlier.
            temperature: Divides the logits.
            seed: Seed from which every answer gets a seed of its own.

        Raises:
            KeyLMError: llama.cpp rejects a prompt.
        """
        # 31 bits, because to llama.cpp the largest number of 32 bits means a random seed.
        rng = Random(seed)
        options = [{**_SAMPLING, "temperature": temperature, "seed": rng.getrandbits(31)} for _ in prompts]
        with ThreadPoolExecutor(NUM_SLOTS) as threads:
            return list(threads.map(lambda prompt, own: self._complete(prompt, max_new_tokens, own), prompts, options))

    def _complete(self, prompt: Sequence[int], max_new_tokens: int, options: dict[str, Any]) -> Answer:
        max_tokens = min(max_new_tokens, self.context_length - len(prompt))
        if max_tokens <= 0:
            return Answer("", ended=False)
        request = {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "stream": False,
            # The file's own sampling defaults, which are for chatting, would apply otherwise.
            "repeat_penalty": 1.0,
            "cache_prompt": False,  # A cached prefix changes rounding with the order in which prompts arrive.
            **options,
        }
        responses: list[dict[str, Any]] = []
        self._server.handle_completions(request, responses.append)
        response = responses[0]
        if "choices" not in response:
            raise KeyLMError(f"llama.cpp rejects a prompt of {len(prompt)} tokens: {response}")
        choice, tokens = response["choices"][0], response.get("__verbose", {}).get("tokens", ())
        return Answer(choice["text"], ended=choice["finish_reason"] != "length", tokens=tuple(tokens))
