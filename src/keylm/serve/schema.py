"""The request and response schema: OpenAI's completion API, with the sampling parameters of llama.cpp."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keylm.common.errors import UserError
from keylm.gguf.header import GGUFHeader
from keylm.serve.engine import Chunk, Engine

Body = dict[str, Any]
"""A JSON object that a client or llama.cpp sends or gets."""

_Probability = Annotated[float, Field(ge=0, le=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_Positive = Annotated[float, Field(ge=0, le=100)]
_Count = Annotated[int, Field(ge=-1, le=2**31 - 1)]
_Length = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Text = Annotated[str, Field(max_length=10_000)]
_Texts = Annotated[list[_Text], Field(max_length=16)]
# JSON has no tuples, so a strict schema has to be told that a list may stand for one.
_TokenBias = Annotated[tuple[int | str, float | bool], Field(strict=False)]

# Fields of OpenAI's that would change the shape of an answer: accepted with their default value only.
_Nothing = Annotated[list[Any], Field(max_length=0)]
_NOT_FOR_LLAMA: Any = Field(None, exclude=True)


class RequestError(Exception):
    """A request that cannot be answered: its HTTP status, OpenAI's code for the reason, and the parameter at fault."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> Body:
        """Return the error in OpenAI's shape."""
        category = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": str(self), "type": category, "param": self.param, "code": self.code}}


class _TextFormat(BaseModel):
    type: Literal["text"]


class CompletionParameters(BaseModel):
    """The fields of both completion endpoints, with their types and ranges. A field that is not listed is refused.

    Parameters that a request leaves out, or sets to null, have the defaults of the served model.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    stream: bool | None = _NOT_FOR_LLAMA

    max_tokens: _Length | None = None
    max_completion_tokens: _Length | None = None
    n_predict: _Length | None = None
    stop: _Text | _Texts | None = None
    seed: int | None = None
    ignore_eos: bool | None = None

    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_k: _Count | None = None
    top_p: _Probability | None = None
    min_p: _Probability | None = None
    typical_p: _Probability | None = None
    dynatemp_range: _Positive | None = None
    dynatemp_exponent: _Positive | None = None
    xtc_probability: _Probability | None = None
    xtc_threshold: _Probability | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: _Positive | None = None
    mirostat_eta: _Probability | None = None

    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    repeat_last_n: _Count | None = None
    dry_multiplier: _Positive | None = None
    dry_base: _Positive | None = None
    dry_allowed_length: _Count | None = None
    dry_penalty_last_n: _Count | None = None
    dry_sequence_breakers: _Texts | None = None

    logit_bias: dict[str, float] | Annotated[list[_TokenBias], Field(max_length=1000)] | None = None
    grammar: _Text | None = None
    json_schema: dict[str, Any] | None = None

    n: Literal[1] | None = _NOT_FOR_LLAMA
    logprobs: Literal[False] | None = _NOT_FOR_LLAMA
    tools: _Nothing | None = _NOT_FOR_LLAMA
    functions: _Nothing | None = _NOT_FOR_LLAMA
    response_format: _TextFormat | None = _NOT_FOR_LLAMA

    # Fields that OpenAI's clients send and that do not change the text of an answer.
    model: Any = _NOT_FOR_LLAMA
    user: Any = _NOT_FOR_LLAMA
    metadata: Any = _NOT_FOR_LLAMA
    store: Any = _NOT_FOR_LLAMA
    stream_options: Any = _NOT_FOR_LLAMA
    safety_identifier: Any = _NOT_FOR_LLAMA
    prompt_cache_key: Any = _NOT_FOR_LLAMA

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Parse and check the body of a request.

        Raises:
            RequestError: The body is not a JSON object of Unicode text and 64-bit integers, or breaks the schema.
        """
        try:
            body = json.loads(raw, parse_int=_int64)
            json.dumps(body, ensure_ascii=False).encode()  # fails on lone surrogates, which JSON can escape
        except (ValueError, RecursionError) as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
        if not isinstance(body, dict):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            param = str(problems[0]["loc"][0])
            if problems[0]["type"] == "extra_forbidden":
                message = f"there is no parameter `{param:.100}`"
            else:
                # A value of the wrong type breaks every branch of a union: name them all, and each once.
                reasons = dict.fromkeys(problem["msg"] for problem in problems if problem["loc"][0] == param)
                message = f"`{param}`: {', or: '.join(reasons)}"
            raise RequestError(HTTPStatus.BAD_REQUEST, message, param=param) from error

    def to_llama(self, engine: Engine) -> Body:  # noqa: ARG002
        """Return the request for `Engine.complete`.

        Raises:
            RequestError: The engine cannot encode the prompt.
        """
        request = {name: value for name, value in self.model_dump().items() if value is not None}
        if "max_completion_tokens" in request:
            request["max_tokens"] = request.pop("max_completion_tokens")
        return request

    def opening_events(self, chunk: Chunk) -> list[Body]:  # noqa: ARG002
        """Return the events that come before that of the first chunk."""
        return []

    def to_event(self, chunk: Chunk) -> Body:
        """Return the event of a stream for a chunk. llama.cpp's chunks have OpenAI's shape."""
        return chunk

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the whole response for all chunks of an answer; the last has its usage and finish reason."""
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        return {**chunks[-1], "choices": [{**chunks[-1]["choices"][0], "text": text}]}


class CompletionRequest(CompletionParameters):
    """Body of `POST /v1/completions`: a text, in which control strings count, or token ids, completed as they are."""

    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[int], Field(min_length=1, fail_fast=True)]


class ChatCompletionRequest(CompletionParameters):
    """Body of `POST /v1/chat/completions`: messages, in which control strings are plain characters."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, exclude=True)]

    def to_llama(self, engine: Engine) -> Body:
        """Return the request for `Engine.complete`, with the messages as token ids."""
        messages: list[Any] = []
        for message in self.messages:
            content = message.get("content")
            # OpenAI's clients may send a text as a list of parts.
            if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
                content = "\n".join(str(part["text"]) for part in content)
            messages.append({"role": message.get("role"), "content": content})
        try:
            return {**super().to_llama(engine), "prompt": engine.prompt(messages)}
        except UserError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from error

    def opening_events(self, chunk: Chunk) -> list[Body]:
        """Return an event with the role."""
        return [self._event(chunk, {"role": "assistant", "content": ""}, None)]

    def to_event(self, chunk: Chunk) -> Body:
        """Return an event with the chunk's text."""
        choice = chunk["choices"][0]
        return self._event(chunk, {"content": choice["text"]} if choice["text"] else {}, choice["finish_reason"])

    @staticmethod
    def _event(chunk: Chunk, delta: Body, reason: str | None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**chunk, "object": "chat.completion.chunk", "choices": [choice]}

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the answer as a message of the assistant."""
        completion = super().to_response(chunks)
        text, reason = completion["choices"][0]["text"], completion["choices"][0]["finish_reason"]
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return {**completion, "object": "chat.completion", "choices": [choice]}


def model_body(header: GGUFHeader, created: int) -> Body:
    """Describe a model: its context length (tokens) and sampling defaults; `created` is in seconds since 1970."""
    meta = {
        "context_length": header.context_length,
        "temperature": header.temperature,
        "repetition_penalty": header.repetition_penalty,
    }
    return {"id": header.name, "object": "model", "created": created, "owned_by": "keylm", "meta": meta}


def _int64(digits: str) -> int:
    # llama.cpp's JSON library has no larger integers.
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{digits:.40} is too large")
    return value
