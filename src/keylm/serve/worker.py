"""llama.cpp in a process of its own, which `keylm.serve.engine` starts, asks, and kills when it is stuck.

The process reads lines of JSON from stdin and writes lines of JSON to stdout. It answers `{"id": n, "complete": body}`
with `{"id": n, "chunk": ...}` for each chunk and `{"id": n}` at the end, and ends early after `{"stop": n}`.
`{"id": n, "metrics": true}` is answered the same way. The first line that it writes, `{"id": 0}`, says that the model
is loaded. When stdin ends, so does the process: it never outlives the one that started it.

This file runs as a program. It imports nothing of keylm, so that it starts fast wherever keylm was imported from.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

_CACHE_MIB = 1024
"""Memory for the prompt cache of conversations that have lost their slot. llama.cpp's default is 8 GiB."""

_SPARE_BYTES = (_CACHE_MIB + 1024) << 20
"""What the process may allocate once the model is loaded: the prompt cache, and as much again for all else."""


class Worker:
    """A loaded model, and the thread of each request.

    Args:
        output: Where the replies go.
        path: The GGUF.
        name: The name that responses give the model.
        num_slots: Requests that are answered at the same time.
        context_length: Tokens of each.
        num_threads: Threads that compute.

    Raises:
        RuntimeError: llama.cpp cannot load the file.
    """

    def __init__(
        self, output: TextIO, path: str, name: str, num_slots: int, context_length: int, num_threads: int
    ) -> None:
        import xllamacpp

        self._output = output
        self._lock = threading.Lock()
        self._stopped: set[int] = set()
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.model_alias = {name}
        params.n_parallel = num_slots
        params.n_ctx = num_slots * context_length
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
        params.cache_ram_mib = _CACHE_MIB
        params.endpoint_metrics = True
        params.verbosity = -1
        params.fit_params = False  # to the memory of a GPU; looking for one takes a third of the time to load
        # llama.cpp opens an HTTP port of its own on the loopback. Nobody needs it, so nobody gets its key.
        params.api_keys = [os.urandom(16).hex()]
        params.ui = False
        self._llama = xllamacpp.Server(params)

    def handle(self, message: dict[str, Any]) -> None:
        """Start what a message asks for, in a thread."""
        if "stop" in message:
            self._stopped.add(message["stop"])
            return
        threading.Thread(target=self._answer, args=(message,), daemon=True).start()

    def reply(self, number: int, **content: Any) -> None:
        """Write a reply to message `number`."""
        line = json.dumps({"id": number, **content})
        with self._lock:
            self._output.write(line + "\n")
            self._output.flush()

    def _answer(self, message: dict[str, Any]) -> None:
        number = message["id"]
        try:
            if "metrics" in message:
                self.reply(number, chunk=str(self._llama.handle_metrics()))
            else:
                self._complete(number, message["complete"])
        except Exception as error:
            self.reply(number, chunk={"error": {"code": 500, "message": repr(error), "type": "server_error"}})
        self._stopped.discard(number)
        self.reply(number)

    def _complete(self, number: int, request: dict[str, Any]) -> None:
        follower: SchemaFollower | None = None

        def pass_on(chunk: dict[str, Any]) -> bool:
            if follower and "choices" in chunk and not follower.accepts(chunk["choices"][0]["text"]):
                self.reply(number, chunk=_schema_error("llama.cpp cannot follow it any further"))
                return True
            self.reply(number, chunk=chunk)
            return number in self._stopped

        if "json_schema" in request:
            try:
                follower = SchemaFollower(request["json_schema"])
            except ValueError as error:
                self.reply(number, chunk=_schema_error(str(error)))
                return
        # With progress in its prompt, an answer that is alive is never silent for longer than a batch.
        self._llama.handle_completions({"stream": True, **request, "return_progress": True}, pass_on)


class SchemaFollower:
    """Reads an answer beside llama.cpp, which writes free text where it cannot follow a JSON schema (any further).

    Raises:
        ValueError: The schema is invalid, or uses what llguidance does not support.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self._matcher = LLMatcher(LLTokenizer("byte"), f"%llguidance {{}}\nstart: %json {json.dumps(schema)}")
        # Of several lines, the last show the place in the grammar, which is not what the client has written.
        problem = self._matcher.get_error().partition("\n   1 | ")[0]
        if problem:
            raise ValueError(" ".join(problem.rpartition("JSON schema: ")[2].split()))

    def accepts(self, text: str) -> bool:
        """Read the next piece of the answer, and return whether it follows the schema so far."""
        return self._matcher.try_consume_tokens(list(text.encode())) == len(text.encode())


def _schema_error(problem: str) -> dict[str, Any]:
    error = {"code": 400, "message": f"`json_schema`: {problem}", "type": "invalid_request_error"}
    return {"error": {**error, "param": "json_schema"}}


def _limit_memory() -> None:
    """Have the system refuse memory beyond what answers need: the process then ends, and the machine does not."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        limit = int(statistics.read_text().split()[5]) * resource.getpagesize() + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Load the model that the only argument describes in JSON, and answer until stdin ends."""
    # What llama.cpp or a library of its prints must not come between the replies.
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    try:
        worker = Worker(output, **json.loads(sys.argv[1]))
    except RuntimeError:
        os._exit(1)
    if sys.platform != "win32":
        _limit_memory()
    worker.reply(0)
    for line in sys.stdin:
        worker.handle(json.loads(line))
    # Without destroying llama.cpp's server, which can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
