"""The engine: llama.cpp with a GGUF, prompted with token ids, in a process that is replaced when it is stuck."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from keylm.common.documents import Message
from keylm.common.errors import KeyLMError
from keylm.common.hardware import physical_cores
from keylm.gguf.header import read_gguf_header
from keylm.tokenizer.messages import encode_messages
from keylm.tokenizer.tokenizer import END_OF_TEXT, TURN_END, TURN_START

Chunk = dict[str, Any]
"""A chunk of a streamed completion: OpenAI's `text_completion` object, or `{"error": ...}`."""

_SPINS = "3000"
"""Rounds for which a thread of llama.cpp spins before it sleeps (libgomp's GOMP_SPINCOUNT), about 200 microseconds.
With libgomp's default of 300,000, spinning threads take the core from the very thread that they wait for as soon as
another process is busy."""

_CERTAIN = 1e6
"""A bias beside which no other token has a chance."""

_METRICS_SECONDS = 2
"""How long llama.cpp may take to report its counters. It does so between two batches."""


class EngineError(KeyLMError):
    """llama.cpp was stuck, or its process has ended. The next request starts it anew."""


class Engine:
    """A loaded model.

    llama.cpp's own chat endpoint parses control strings in a user's text as control tokens. Here messages become token
    ids with `keylm.tokenizer.messages`, as in training, and llama.cpp completes the ids.

    Args:
        path: The GGUF.
        num_slots: Requests that are answered at the same time, each with the model's whole context.
        num_threads: Threads that compute; None takes the number of physical cores.
        stall_seconds: How long llama.cpp may be silent within an answer before its process is replaced.

    Raises:
        UserError: The file is not a GGUF that keylm wrote.
        KeyLMError: llama.cpp cannot load it.
    """

    def __init__(
        self, path: Path, num_slots: int = 1, num_threads: int | None = None, stall_seconds: float = 30
    ) -> None:
        self.path = path
        self.header = read_gguf_header(path)
        self._settings = {
            "path": str(path),
            "name": self.header.name,
            "num_slots": num_slots,
            "context_length": self.header.context_length,
            "num_threads": num_threads or physical_cores(),
        }
        self._stall_seconds = stall_seconds
        self._closing = False
        self._lock = threading.Lock()
        self._process = LlamaProcess(self._settings)
        try:
            self._process.wait_until_loaded()
        except BaseException as error:  # Ctrl-C included
            self._process.close()
            if not isinstance(error, EngineError):
                raise
            raise KeyLMError(f"llama.cpp cannot load {path}: the file is damaged, or memory is short") from error

    @cached_property
    def max_prompt_bytes(self) -> int:
        """Length in UTF-8 beyond which no text fits into the context, whatever its tokens are."""
        # A byte-level token has one character for each of its bytes.
        return self.header.context_length * max(map(len, self.header.tokenizer.backend.get_vocab()))

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

        Raises:
            EngineError: llama.cpp was stuck, its process has ended, or the engine was closed meanwhile.
        """

        def pass_on(chunk: Chunk) -> bool | None:
            return None if "prompt_progress" in chunk else on_chunk(chunk)

        self._running_process().ask({"complete": request}, pass_on, self._stall_seconds)

    def prompt_of_text(self, text: str) -> list[int]:
        """Return the token ids of a text in which control strings count, as llama.cpp reads it."""
        tokenizer = self.header.tokenizer
        controls = {END_OF_TEXT: tokenizer.end_of_text, TURN_START: tokenizer.turn_start, TURN_END: tokenizer.turn_end}
        parts = re.split(f"({'|'.join(map(re.escape, controls))})", text)
        return [token for part in parts for token in ([controls[part]] if part in controls else tokenizer.encode(part))]

    def score(self, ids: Sequence[int], num_top: int, is_stopped: Callable[[], bool]) -> list[Chunk]:
        """Return each token of a prompt with its log-likelihood (`logprob`) and the `num_top` likeliest in its place.

        llama.cpp reports likelihoods of what it writes only. So it is made to write the prompt, a token at a time: each
        costs as much as a token of an answer.

        Args:
            ids: Token ids.
            num_top: Number of likeliest tokens, at least 1.
            is_stopped: Whether nobody waits for the result any more.

        Raises:
            EngineError: See `complete`.
        """
        first = self.header.tokenizer.decode([ids[0]], keep_control=True)
        entries: list[Chunk] = [{"bytes": list(first.encode()), "logprob": None, "top_logprobs": []}]
        for position in range(1, len(ids)):
            if is_stopped():
                break
            prompt, token = list(ids[:position]), ids[position]
            entries.append(self._force(prompt, token, num_top) or self._look_up(prompt, token, num_top))
        return entries

    def _force(self, prompt: list[int], token: int, num_top: int) -> Chunk | None:
        """The likelihood of a token that llama.cpp is made to write; None for the first bytes of a character."""
        chunks: list[Chunk] = []
        forced = {"logit_bias": [[token, _CERTAIN]], "temperature": 0, "repeat_penalty": 1, "max_tokens": 1}
        self.complete({"prompt": prompt, "n_probs": num_top, "stream": False, **forced}, chunks.append)
        logprobs = chunks[-1]["choices"][0]["logprobs"]
        return logprobs["content"][0] if logprobs else None

    def _look_up(self, prompt: list[int], token: int, num_top: int) -> Chunk:
        """The same among the likelihoods of all tokens, which takes longer: they are megabytes of JSON."""
        entry = self._force(prompt, self.header.tokenizer.end_of_text, self.header.tokenizer.vocab_size)
        assert entry
        top = entry["top_logprobs"]
        return {**next(other for other in top if other["id"] == token), "top_logprobs": top[:num_top]}

    def metrics(self) -> str:
        """Return llama.cpp's counters in Prometheus's text format.

        Raises:
            EngineError: llama.cpp is busy or stuck, or its process has ended.
        """
        texts: list[str] = []
        self._running_process().ask({"metrics": True}, texts.append, _METRICS_SECONDS, kill=False)
        return "".join(texts)

    def close(self) -> None:
        """End the completions in progress, and free the model. It never waits for llama.cpp."""
        with self._lock:
            self._closing = True
            self._process.close()

    def _running_process(self) -> LlamaProcess:
        with self._lock:
            if self._process.has_ended and not self._closing:
                self._process.close()
                self._process = LlamaProcess(self._settings)
            return self._process


class LlamaProcess:
    """The process of `keylm.serve.worker`, and those who wait for its replies.

    Args:
        settings: The arguments of `Worker`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        # A session of its own: Ctrl-C is for this process, which decides when that one ends.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # llama.cpp comments on every bad grammar of a client
            env={"GOMP_SPINCOUNT": _SPINS, **os.environ},
            start_new_session=True,
        )
        self.has_ended = False
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._inboxes: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {0: queue.SimpleQueue()}
        # Writing has a thread of its own, so that nobody waits for a process that has stopped to read.
        self._outbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._read_replies, self._write_messages)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._process.kill()
            raise

    def wait_until_loaded(self) -> None:
        """Wait until the model is loaded.

        Raises:
            EngineError: The process has ended instead.
        """
        self._next_reply(self._inboxes[0], None)

    def ask(
        self,
        message: dict[str, Any],
        on_chunk: Callable[[Any], bool | None],
        stall_seconds: float,
        kill: bool = True,
    ) -> None:
        """Send a message and pass the chunks of its reply to `on_chunk`, until the last or until it returns True.

        Raises:
            EngineError: No chunk came for `stall_seconds`, upon which the process is killed if `kill`; or it has ended.
        """
        inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self.has_ended:
                raise EngineError("llama.cpp has ended: ask again")
            number = next(self._numbers)
            self._inboxes[number] = inbox
        failure: BaseException | None = None
        is_stopped = False
        try:
            self._outbox.put({"id": number, **message})
            while "chunk" in (reply := self._next_reply(inbox, stall_seconds, kill)):
                if is_stopped:
                    continue
                try:
                    is_stopped = bool(on_chunk(reply["chunk"]))
                except BaseException as error:
                    failure, is_stopped = error, True
                if is_stopped:
                    self._outbox.put({"stop": number})
        finally:
            with self._lock:
                del self._inboxes[number]
        if failure:
            raise failure

    def close(self) -> None:
        """Kill the process. Those who wait for replies get an error."""
        self._process.kill()
        self._process.wait()
        self._outbox.put(None)
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(OSError):  # what could not be sent any more
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]

    def _next_reply(
        self, inbox: queue.SimpleQueue[dict[str, Any] | None], stall_seconds: float | None, kill: bool = True
    ) -> dict[str, Any]:
        try:
            reply = inbox.get(timeout=stall_seconds)
        except queue.Empty:
            if not kill:
                raise EngineError(f"llama.cpp was silent for {stall_seconds:g} s") from None
            self.has_ended = True  # for the next request, which does not wait for the reader to see it
            self._process.kill()
            raise EngineError(f"llama.cpp was silent for {stall_seconds:g} s and is started anew") from None
        if reply is None:
            raise EngineError("llama.cpp has ended: ask again")
        return reply

    def _read_replies(self) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            # A process that is killed may leave half a line.
            if line.endswith(b"\n") and (inbox := self._inboxes.get((reply := json.loads(line))["id"])):
                inbox.put(reply)
        with self._lock:
            self.has_ended = True
            for inbox in self._inboxes.values():
                inbox.put(None)

    def _write_messages(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the process has ended, which the other thread sees
            while message := self._outbox.get():
                self._process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
                self._process.stdin.flush()  # type: ignore[union-attr]
