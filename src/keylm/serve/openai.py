"""The shapes of OpenAI's API: chat requests into completions of token ids, and completions back into chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError

from keylm.common.documents import Message
from keylm.common.errors import UserError
from keylm.gguf.file import GGUFHeader
from keylm.serve.engine import Chunk, Engine
from keylm.serve.parameters import IGNORED, Parameters

Body = dict[str, Any]
"""A JSON object that comes in or goes out."""

_ONLY = {"n": 1, "logprobs": False, "tools": [], "functions": [], "response_format": {"type": "text"}}
"""Fields that would change an answer's shape, and the one value that they may have."""


class RequestError(Exception):
    """A request that cannot be answered, with its HTTP status, OpenAI's code where it has one for the reason, and the
    parameter that is wrong."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


@dataclass(frozen=True)
class Endpoint:
    """How one endpoint asks and answers."""

    request: Callable[[Engine, Body], Body]
    """Body of the request to what the engine completes."""
    opening: Callable[[Chunk], list[Body]]
    """First piece to the events that go before it in a stream."""
    event: Callable[[Chunk], Body]
    """Piece to event of a stream."""
    whole: Callable[[Chunk], Body]
    """All pieces, merged, to an answer in one."""


def parse(raw: bytes) -> Body:
    """The JSON object in a request's body.

    Raises:
        RequestError: it is none, or holds what is neither Unicode text nor a number of 64 bits.
    """
    try:
        body = json.loads(raw, parse_int=_int64)
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return body


def checked(chunk: Chunk) -> Chunk:
    """The piece itself.

    Raises:
        RequestError: it is llama.cpp's refusal.
    """
    if "error" in chunk:
        refusal = chunk["error"]
        code = "context_length_exceeded" if refusal["type"] == "exceed_context_size_error" else None
        raise RequestError(refusal["code"], refusal["message"], code)
    return chunk


def merged(chunks: list[Chunk]) -> Chunk:
    """All pieces of an answer as one, with the last one's usage and reason to finish."""
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    return {**chunks[-1], "choices": [{**chunks[-1]["choices"][0], "text": text}]}


def error(problem: RequestError) -> Body:
    """An error, as OpenAI's clients understand it."""
    kind = "server_error" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"error": {"message": str(problem), "type": kind, "param": problem.param, "code": problem.code}}


def models(header: GGUFHeader, created: int) -> Body:
    """The one model that is served."""
    return {"object": "list", "data": [model(header, created)]}


def model(header: GGUFHeader, created: int) -> Body:
    """A model, with its context length (tokens) and its defaults of sampling; `created` in seconds since 1970."""
    meta = {
        "context_length": header.context_length,
        "temperature": header.temperature,
        "repetition_penalty": header.repetition_penalty,
    }
    return {"id": header.name, "object": "model", "created": created, "owned_by": "keylm", "meta": meta}


def _text_request(_engine: Engine, body: Body) -> Body:
    prompt = body.get("prompt")
    ids = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if not prompt or not (ids or isinstance(prompt, str)):
        raise RequestError(HTTPStatus.BAD_REQUEST, "`prompt` must be one text or one list of token ids")
    return {**_parameters(body), "prompt": prompt}


def _chat_request(engine: Engine, body: Body) -> Body:
    request = _parameters(body)
    try:
        return {**request, "prompt": engine.prompt(_messages(body.get("messages")))}
    except UserError as problem:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(problem)) from problem


def _parameters(body: Body) -> Body:
    """What the engine is to be told of a request besides its prompt, checked."""
    for field, only in _ONLY.items():
        if body.get(field) not in (None, only):
            raise RequestError(HTTPStatus.BAD_REQUEST, f"`{field}` can only be {json.dumps(only)} here", param=field)
    given = {key: value for key, value in body.items() if key not in (*_ONLY, *IGNORED, "messages", "prompt")}
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    try:
        return Parameters.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        problem = error.errors()[0]
        field = str(problem["loc"][0])
        unknown = problem["type"] == "extra_forbidden"
        message = f"there is no parameter `{field:.100}`" if unknown else f"`{field}`: {problem['msg']}"
        raise RequestError(HTTPStatus.BAD_REQUEST, message, param=field) from error


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise RequestError(HTTPStatus.BAD_REQUEST, "`messages` must be a list of objects with a role and a content")
    return [{"role": message.get("role"), "content": _text(message.get("content"))} for message in value]


def _text(content: Any) -> Any:
    """A message's content, whose parts of text may come as a list."""
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        return "\n".join(str(part["text"]) for part in content)
    return content


def _opening(chunk: Chunk) -> list[Body]:
    return [_delta(chunk, {"role": "assistant", "content": ""}, None)]


def _chat_event(chunk: Chunk) -> Body:
    choice = chunk["choices"][0]
    return _delta(chunk, {"content": choice["text"]} if choice["text"] else {}, choice["finish_reason"])


def _delta(chunk: Chunk, delta: Body, reason: str | None) -> Body:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**chunk, "object": "chat.completion.chunk", "choices": [choice]}


def _chat_whole(chunk: Chunk) -> Body:
    choice = chunk["choices"][0]
    message = {"role": "assistant", "content": choice["text"]}
    answer = {"index": 0, "message": message, "logprobs": None, "finish_reason": choice["finish_reason"]}
    return {**chunk, "object": "chat.completion", "choices": [answer]}


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{digits:.40} is too large")
    return value


def _same(chunk: Chunk) -> Body:
    return chunk


CHAT = Endpoint(_chat_request, _opening, _chat_event, _chat_whole)
"""`/v1/chat/completions`: messages, in which control strings are plain characters."""
TEXT = Endpoint(_text_request, lambda _chunk: [], _same, _same)
"""`/v1/completions`: a prompt as it is, in which control strings count."""
