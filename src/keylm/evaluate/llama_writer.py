"""Greedy answers by llama.cpp, many at a time: on two cores several times as fast as transformers' `generate`.

A conversation that ends makes room for the next one at once, and nothing is padded. Weights, attention and cache are
those of the file, in float32, so answers are transformers', up to places where two tokens are equally likely but for
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keylm.errors import KeyLMError
from keylm.evaluate.answers import Answer
from keylm.llama import exact_server, physical_cores
from keylm.run import Run
from keylm.screen import progress

NUM_SLOTS = 16
"""Answers that are written at the same time."""


def of_run(run: Run, stage: str) -> LlamaWriter:
    """The weights that a training left, in float32.

    The file that llama.cpp reads is gone when this returns: the system keeps what is mapped of it.
    """
    from safetensors.torch import load_file

    from keylm.export import gguf

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        gguf.write(run, load_file(run.weights(stage)), "F32", path)
        return LlamaWriter(path, run.recipe.model.max_position_embeddings)


@dataclass
class LlamaWriter:
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
                answer = self._answer(prompt, max_new_tokens, stop)
                bar.advance()
                return answer

            return list(threads.map(one, prompts))

    def _answer(self, prompt: Sequence[int], max_new_tokens: int, stop: Sequence[str]) -> Answer:
        room = min(max_new_tokens, self.context_length - len(prompt))
        if room <= 0:
            return Answer("", ended=False)
        greedy = {"temperature": 0.0, "repeat_penalty": 1.0, "cache_prompt": False}
        request = {"prompt": list(prompt), "max_tokens": room, "stop": list(stop), "stream": False, **greedy}
        told: list[dict[str, Any]] = []
        self._server.handle_completions(request, told.append)
        if "choices" not in told[0]:
            raise KeyLMError(f"llama.cpp refuses a prompt of {len(prompt)} tokens: {told[0]}")
        choice = told[0]["choices"][0]
        return Answer(choice["text"], ended=choice["finish_reason"] != "length")
