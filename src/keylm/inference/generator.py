"""Answers by llama.cpp, many at a time: on two cores several times as fast as transformers' `generate`.

A conversation that ends makes room for the next one at once, and nothing is padded. Weights, attention and cache are
those of the file, in float32, so greedy answers are transformers', up to places where two tokens are equally likely but
for rounding.
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
"""Answers that are written at the same time."""

_GREEDY = {"temperature": 0.0}
_DRAWN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "verbose": True, "return_tokens": True}
"""Nothing is kept from being drawn, and the tokens are told: llama.cpp has them in its verbose reply alone."""


def generator_of_run(run: Run, stage: str) -> LlamaCppGenerator:
    """The weights that a training left, in float32."""
    from safetensors.torch import load_file

    return generator_of_weights(run, load_file(run.weights(stage)))


def generator_of_weights(run: Run, weights: dict[str, Tensor]) -> LlamaCppGenerator:
    """A model of the run's graph and vocabulary, in float32.

    The file that llama.cpp reads is gone when this returns: the system keeps what is mapped of it.
    """
    from keylm.gguf.file import write_gguf

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_gguf(run, weights, "F32", path)
        return LlamaCppGenerator(path, run.recipe.model.max_position_embeddings)


@dataclass
class LlamaCppGenerator:
    """A GGUF that goes on from token ids."""

    path: Path
    context_length: int
    _server: Any = field(init=False)

    def __post_init__(self) -> None:
        """Load the file.

        Raises:
            KeyLMError: llama.cpp cannot.
        """
        try:
            self._server = exact_server(self.path, NUM_SLOTS, self.context_length, physical_cores())
        except RuntimeError as error:
            raise KeyLMError(f"llama.cpp cannot load {self.path}: the file is damaged, or memory is short") from error

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[str] = ()) -> list[Answer]:
        """The likeliest continuation of each prompt of token ids, up to the model's own end or one of `stop`.

        An answer is cut off after `max_new_tokens`, or where the context is full.

        Raises:
            KeyLMError: llama.cpp refuses a prompt.
        """
        with ThreadPoolExecutor(NUM_SLOTS) as threads, progress("answers", len(prompts), "answers") as bar:

            def one(prompt: Sequence[int]) -> Answer:
                answer = self._answer(prompt, max_new_tokens, {**_GREEDY, "stop": list(stop)})
                bar.advance()
                return answer

            return list(threads.map(one, prompts))

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """A continuation of each prompt of token ids, drawn from all that the model might say, with its tokens.

        Raises:
            KeyLMError: llama.cpp refuses a prompt.
        """
        seeds = Random(seed)
        drawn = [{**_DRAWN, "temperature": temperature, "seed": seeds.getrandbits(31)} for _ in prompts]
        with ThreadPoolExecutor(NUM_SLOTS) as threads:
            return list(threads.map(lambda prompt, how: self._answer(prompt, max_new_tokens, how), prompts, drawn))

    def _answer(self, prompt: Sequence[int], max_new_tokens: int, how: dict[str, Any]) -> Answer:
        room = min(max_new_tokens, self.context_length - len(prompt))
        if room <= 0:
            return Answer("", ended=False)
        always = {"stream": False, "repeat_penalty": 1.0, "cache_prompt": False}
        told: list[dict[str, Any]] = []
        self._server.handle_completions({"prompt": list(prompt), "max_tokens": room, **always, **how}, told.append)
        if "choices" not in told[0]:
            raise KeyLMError(f"llama.cpp refuses a prompt of {len(prompt)} tokens: {told[0]}")
        choice, tokens = told[0]["choices"][0], told[0].get("__verbose", {}).get("tokens", ())
        return Answer(choice["text"], ended=choice["finish_reason"] != "length", tokens=tuple(tokens))
