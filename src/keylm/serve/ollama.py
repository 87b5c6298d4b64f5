"""Ollama's API (https://github.com/ollama/ollama/blob/main/docs/api.md), for clients that speak no other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from keylm.common.files import cached_sha256
from keylm.serve.engine import Chunk, Engine
from keylm.serve.schema import Body, ChatCompletionRequest, bad_parameter, parse_json

VERSION = "0.12.0"
"""The version of Ollama whose API this is: some clients ask for it."""

_OPTIONS = {
    **{name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop")},
    **{name: name for name in ("repeat_penalty", "repeat_last_n", "presence_penalty", "frequency_penalty")},
    **{name: name for name in ("mirostat", "mirostat_tau", "mirostat_eta")},
    "num_predict": "max_tokens",
}
"""Ollama's options that change an answer, with OpenAI's names. The others are about memory and threads."""
_FIELDS = ("messages", "tools", "stream")
"""Fields that both APIs have."""


class OllamaChatRequest(ChatCompletionRequest):
    """Body of `POST /api/chat`: a chat completion under other names, by default streamed, as lines of JSON."""

    media_type: ClassVar[str] = "application/x-ndjson"
    event_prefix: ClassVar[str] = ""
    event_suffix: ClassVar[str] = "\n"
    end_of_stream: ClassVar[str] = ""

    @classmethod
    def parse(cls, raw: bytes | bytearray) -> Self:
        """Parse and check the body of a request.

        Raises:
            RequestError: It is not valid, or has a picture.
        """
        body = parse_json(raw)
        fields = {name: body[name] for name in _FIELDS if name in body}
        options = body.get("options") or {}
        if not isinstance(options, dict):
            raise bad_parameter("options", "it must be an object")
        messages = body.get("messages")
        if isinstance(messages, list) and any(isinstance(turn, dict) and turn.get("images") for turn in messages):
            raise bad_parameter("messages", "this model reads no images")
        if options.get("num_predict") == -2:  # to the end of the context
            options = {**options, "num_predict": -1}
        parameters = {_OPTIONS[name]: value for name, value in options.items() if name in _OPTIONS}
        return cls.validate_fields({"stream": True, **fields, **parameters, **_response_format(body.get("format"))})

    def opening_events(self, chunk: Chunk) -> list[Body]:  # noqa: ARG002
        """Return no event: the role comes with each piece of text."""
        return []

    def to_event(self, chunk: Chunk) -> Body:
        """Return a line with the chunk's text."""
        message = {"role": "assistant", "content": chunk["choices"][0]["text"]}
        return {**_head(chunk), "message": message, "done": False}

    def closing_events(self, chunks: list[Chunk]) -> list[Body]:
        """Return the last line, which has the counts."""
        return [{**self.to_response(chunks), "message": {"role": "assistant", "content": ""}}]

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the whole answer, with its counts of tokens and its durations in nanoseconds."""
        last = chunks[-1]
        timings = last.get("timings", {})
        prompt_ns, answer_ns = (round(timings.get(name, 0) * 1e6) for name in ("prompt_ms", "predicted_ms"))
        return {
            **_head(last),
            "message": {"role": "assistant", "content": "".join(chunk["choices"][0]["text"] for chunk in chunks)},
            "done": True,
            "done_reason": last["choices"][0]["finish_reason"],
            "total_duration": prompt_ns + answer_ns,
            "load_duration": 0,
            "prompt_eval_count": last["usage"]["prompt_tokens"],
            "prompt_eval_duration": prompt_ns,
            "eval_count": last["usage"]["completion_tokens"],
            "eval_duration": answer_ns,
        }


def tags_body(engine: Engine) -> Body:
    """Return what `GET /api/tags` says of the served model."""
    status = engine.path.stat()
    details = {"format": "gguf", "family": "qwen3", "families": ["qwen3"]}
    model = {
        "name": engine.header.name,
        "model": engine.header.name,
        "modified_at": _time(status.st_mtime),
        "size": status.st_size,
        "digest": cached_sha256(engine.path),
        "details": {**details, "quantization_level": engine.path.stem.rpartition("-")[2]},
    }
    return {"models": [model]}


def _head(chunk: Chunk) -> Body:
    return {"model": chunk["model"], "created_at": _time(chunk["created"])}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _response_format(value: Any) -> Body:
    """Ollama's `format`, a JSON schema or `json`, as OpenAI's `response_format`."""
    if not value:
        return {}
    if isinstance(value, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}
    if value == "json":
        return {"response_format": {"type": "json_object"}}
    raise bad_parameter("format", "it is `json` or a JSON schema")
