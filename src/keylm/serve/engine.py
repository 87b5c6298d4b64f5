"""The engine: llama.cpp in this process, on the GGUF of a run, fed with token ids."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keylm.common.documents import Message
from keylm.common.errors import KeyLMError
from keylm.common.hardware import physical_cores
from keylm.gguf.file import read_gguf_header
from keylm.tokenizer.messages import encode_messages

Chunk = dict[str, Any]
"""One piece of a streamed completion, in the shape of OpenAI's `text_completion`, or `{"error": ...}`."""


_SPINS = "3000"
"""Rounds that a thread of llama.cpp waits awake for the others, some 200 microseconds, before it sleeps (libgomp's
GOMP_SPINCOUNT). libgomp's own 300,000 rounds keep a core from whom all wait for: a process that needs it too."""

_CACHE_MIB = 1024
"""Memory for what was computed of conversations that no slot holds any more; llama.cpp would take 8 GiB."""


class Engine:
    """A loaded model.

    llama.cpp's own chat endpoint reads control strings in a user's text as control tokens. So messages become token
    ids here, by `keylm.tokenizer.messages` as in training, and llama.cpp completes ids.
    """

    def __init__(self, path: Path, num_slots: int = 1, num_threads: int | None = None) -> None:
        """Load a GGUF, to answer up to `num_slots` requests at once, each with the model's whole context.

        `num_threads` compute; by default as many as there are physical cores.

        Raises:
            UserError: the file is not a GGUF of ours.
            KeyLMError: llama.cpp cannot load it.
        """
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
        # llama.cpp opens an HTTP port of its own, on loopback: nobody needs it, so nobody gets its key.
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
        """Token ids that ask for the assistant's next turn; control strings in messages are plain characters.

        Raises:
            UserError: a message is not one.
        """
        return encode_messages(self.header.tokenizer, messages, add_generation_prompt=True)[0]

    def complete(self, request: dict[str, Any], on_chunk: Callable[[Chunk], bool | None]) -> None:
        """Complete `request["prompt"]` (token ids, or text in which control strings count), piece by piece.

        `request` is a body for OpenAI's `/v1/completions`, with llama.cpp's extras. `on_chunk` sees every piece, the
        last of them with `usage`, and stops the answer by returning True. What it raises, this raises.
        """
        failures: list[BaseException] = []

        def guarded(chunk: Chunk) -> bool:
            try:
                return bool(on_chunk(chunk)) or self._closing
            except BaseException as failure:  # xllamacpp would print it and go on
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
        """llama.cpp's counters, in Prometheus's text format."""
        return str(self._llama.handle_metrics())

    def close(self) -> None:
        """Stop the answers that are running, then free the model."""
        self._closing = True
        with self._changed:
            self._changed.wait_for(lambda: self._num_running == 0)
        del self._llama
