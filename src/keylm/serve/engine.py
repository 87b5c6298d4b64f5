"""The engine: llama.cpp in this process, with the GGUF of a run, prompted with token ids."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keylm.common.documents import Message
from keylm.common.errors import KeyLMError
from keylm.common.hardware import physical_cores
from keylm.gguf.header import read_gguf_header
from keylm.tokenizer.messages import encode_messages

Chunk = dict[str, Any]
"""A chunk of a streamed completion: OpenAI's `text_completion` object, or `{"error": ...}`."""

_SPINS = "3000"
"""Rounds for which a thread of llama.cpp spins before it sleeps (libgomp's GOMP_SPINCOUNT), about 200 microseconds.
With libgomp's default of 300,000, spinning threads take the core from the very thread that they wait for as soon as
another process is busy."""

_CACHE_MIB = 1024
"""Memory for the prompt cache of conversations that have lost their slot. llama.cpp's default is 8 GiB."""


class Engine:
    """A loaded model.

    llama.cpp's own chat endpoint parses control strings in a user's text as control tokens. Here messages become token
    ids with `keylm.tokenizer.messages`, as in training, and llama.cpp completes the ids.

    Args:
        path: The GGUF.
        num_slots: Requests that are answered at the same time, each with the model's whole context.
        num_threads: Threads that compute; None takes the number of physical cores.

    Raises:
        UserError: The file is not a GGUF that keylm wrote.
        KeyLMError: llama.cpp cannot load it.
    """

    def __init__(self, path: Path, num_slots: int = 1, num_threads: int | None = None) -> None:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
        import xllamacpp

        self.header = read_gguf_header(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {self.header.name}
        params.n_parallel = num_slots
        params.n_ctx = num_slots * self.header.context_length
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads or physical_cores()
        params.cache_ram_mib = _CACHE_MIB
        params.endpoint_metrics = True
        params.verbosity = -1
        params.fit_params = False  # to the memory of a GPU; looking for one takes a third of the time to load
        # llama.cpp opens an HTTP port of its own on the loopback. Nobody needs it, so nobody gets its key.
        params.api_keys = [os.urandom(16).hex()]
        params.ui = False
        try:
            self._llama = xllamacpp.Server(params)
        except RuntimeError as error:
            raise KeyLMError(f"llama.cpp cannot load {path}: the file is damaged, or memory is short") from error
        self._num_running = 0
        self._changed = threading.Condition()
        self._closing = False

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids that prompt the assistant's next turn. Control strings in messages are plain characters.

        Raises:
            UserError: A message has no known role, or no text.
        """
        return encode_messages(self.header.tokenizer, messages, add_generation_prompt=True)[0]

    def complete(self, request: dict[str, Any], on_chunk: Callable[[Chunk], bool | None]) -> None:
        """Complete a prompt, chunk by chunk.

        Args:
            request: Body for OpenAI's `/v1/completions`, with llama.cpp's extensions. Its `prompt` is token ids, or a
                text in which control strings count.
            on_chunk: Is called with every chunk, the last of which has `usage`. It stops the completion by returning
                True; what it raises is raised here.
        """
        failures: list[BaseException] = []

        def guarded(chunk: Chunk) -> bool:
            try:
                return bool(on_chunk(chunk)) or self._closing
            except BaseException as failure:  # xllamacpp would print it and continue
                failures.append(failure)
                return True

        with self._changed:
            self._num_running += 1
        try:
            self._llama.handle_completions({**request, "stream": True}, guarded)
        finally:
            with self._changed:
                self._num_running -= 1
                self._changed.notify_all()
        if failures:
            raise failures[0]

    def metrics(self) -> str:
        """Return llama.cpp's counters in Prometheus's text format."""
        return str(self._llama.handle_metrics())

    def close(self) -> None:
        """Stop the completions in progress, and free the model."""
        self._closing = True
        with self._changed:
            self._changed.wait_for(lambda: self._num_running == 0)
        del self._llama
