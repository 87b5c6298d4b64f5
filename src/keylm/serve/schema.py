"""The request and response schema: OpenAI's completion API, with the sampling parameters of llama.cpp."""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self, cast

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
_Length = Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal[-1]
_Text = Annotated[str, Field(max_length=10_000)]
_Texts = Annotated[list[_Text], Field(max_length=16)]
_TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, fail_fast=True)]
_Prompt = Annotated[str, Field(min_length=1)]
# JSON has no tuples, so a strict schema has to be told that a list may stand for one.
_TokenBias = Annotated[tuple[int | Annotated[str, Field(max_length=100)], float | bool], Field(strict=False)]

# Fields of OpenAI's that would change the shape of an answer: accepted with values that ask for nothing only.
_Nothing = Annotated[list[Any], Field(max_length=0)]
_NOT_FOR_LLAMA: Any = Field(None, exclude=True)

_LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
_COUNTS_OF_TOKENS = ("max_tokens", "n_predict", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n")
_SCHEMA_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_SCHEMA_CHARACTERS = 10_000
_SCHEMA_DEPTH = 64
_REPETITION = re.compile(r"\{\s*\d+\s*(?:,\s*\d*\s*)?\}|\{\s*,\s*\d+\s*\}")


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


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


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
    dry_allowed_length: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    dry_penalty_last_n: _Count | None = None
    dry_sequence_breakers: _Texts | None = None

    logit_bias: (
        Annotated[dict[Annotated[str, Field(max_length=100)], float | bool], Field(max_length=1000)]
        | Annotated[list[_TokenBias], Field(max_length=1000)]
        | None
    ) = None
    grammar: _Text | None = None
    json_schema: dict[str, Any] | None = None

    n: Literal[1] | None = _NOT_FOR_LLAMA
    best_of: Literal[1] | None = _NOT_FOR_LLAMA
    echo: Literal[False] | None = _NOT_FOR_LLAMA
    suffix: Literal[""] | None = _NOT_FOR_LLAMA
    logprobs: Literal[False] | None = _NOT_FOR_LLAMA
    top_logprobs: Literal[0] | None = _NOT_FOR_LLAMA
    tools: _Nothing | None = _NOT_FOR_LLAMA
    tool_choice: Literal["none", "auto"] | None = _NOT_FOR_LLAMA
    parallel_tool_calls: bool | None = _NOT_FOR_LLAMA
    functions: _Nothing | None = _NOT_FOR_LLAMA
    function_call: Literal["none", "auto"] | None = _NOT_FOR_LLAMA
    response_format: _TextFormat | None = _NOT_FOR_LLAMA
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = _NOT_FOR_LLAMA
    reasoning_effort: Literal["none"] | None = _NOT_FOR_LLAMA
    verbosity: Literal["medium"] | None = _NOT_FOR_LLAMA
    cache_prompt: Literal[True] | None = _NOT_FOR_LLAMA
    stream_options: _StreamOptions | None = _NOT_FOR_LLAMA

    # Fields that OpenAI's clients send and that do not change the text of an answer.
    model: Any = _NOT_FOR_LLAMA
    user: Any = _NOT_FOR_LLAMA
    metadata: Any = _NOT_FOR_LLAMA
    store: Any = _NOT_FOR_LLAMA
    service_tier: Any = _NOT_FOR_LLAMA
    safety_identifier: Any = _NOT_FOR_LLAMA
    prompt_cache_key: Any = _NOT_FOR_LLAMA

    @classmethod
    def parse(cls, raw: bytes | bytearray) -> Self:
        """Parse and check the body of a request. Null is the same as absent for every field.

        Raises:
            RequestError: The body breaks the schema, or is not a JSON object of Unicode text, 64-bit integers and
                finite numbers.
        """
        try:
            body = json.loads(raw, parse_int=_int64, parse_float=_finite, parse_constant=_finite)
            json.dumps(body, ensure_ascii=False).encode()  # fails on lone surrogates, which JSON can escape
        except (ValueError, RecursionError) as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
        if not isinstance(body, dict):
            raise RequestError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
        try:
            return cls.model_validate({name: value for name, value in body.items() if value is not None})
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

    def to_llama(self, engine: Engine) -> list[Body]:
        """Return the requests for `Engine.complete`, one for each prompt.

        Raises:
            RequestError: The prompt cannot be encoded or is longer than the context, or the grammar or the schema asks
                for more than an answer can hold.
        """
        context_length = engine.header.context_length
        self._check_grammar(context_length)
        parameters = {name: value for name, value in self.model_dump().items() if value is not None}
        for name in _LENGTHS:
            if parameters.get(name) == -1:  # no limit, for llama.cpp and LM Studio
                del parameters[name]
        if "max_completion_tokens" in parameters:
            parameters["max_tokens"] = parameters.pop("max_completion_tokens")
        # Beyond the context, and as -1, these mean the context. llama.cpp would allocate what they say.
        for name in _COUNTS_OF_TOKENS:
            if name in parameters:
                is_whole = not 0 <= parameters[name] <= context_length
                parameters[name] = context_length if is_whole else parameters[name]
        if "top_k" in parameters:
            parameters["top_k"] = min(parameters["top_k"], engine.header.tokenizer.vocab_size)
        if "stop" in parameters:
            stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
            parameters["stop"] = [text for text in stop if text]  # an empty one would end every answer
        return [{**parameters, "prompt": prompt} for prompt in self._prompts(engine)]

    @abstractmethod
    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        """The texts or token ids to complete.

        Raises:
            RequestError: One cannot be encoded or is longer than the context.
        """

    def _check_grammar(self, context_length: int) -> None:
        """Refuse a grammar or a schema that counts beyond the context: it would be unrolled in memory.

        Raises:
            RequestError: It does, or it is not one that llama.cpp checks.
        """
        if self.grammar and self.json_schema is not None:
            raise _bad_parameter("grammar", "a request has a grammar or a JSON schema, not both")
        # To llama.cpp this prefix means another language, in which it ignores a grammar with an error.
        if self.grammar and self.grammar.lstrip().startswith("%llguidance"):
            raise _bad_parameter("grammar", "a grammar is written in GBNF")
        if (repetitions := _longest_repetition(self.grammar or "")) > context_length:
            message = f"{repetitions} repetitions are beyond the context of {context_length} tokens"
            raise _bad_parameter("grammar", message)
        if self.json_schema is None:
            return
        for keyword, count in _schema_counts(self.json_schema):
            if count > context_length:
                message = f"{keyword} is {count}, beyond the context of {context_length} tokens"
                raise _bad_parameter("json_schema", message)
        if len(json.dumps(self.json_schema)) > _SCHEMA_CHARACTERS:
            raise _bad_parameter("json_schema", f"it is longer than {_SCHEMA_CHARACTERS:,} characters")

    def opening_events(self, chunk: Chunk) -> list[Body]:  # noqa: ARG002
        """Return the events that come before that of the first chunk."""
        return []

    def to_event(self, chunk: Chunk) -> Body:
        """Return the event of a stream for a chunk. llama.cpp's chunks have OpenAI's shape."""
        return {**chunk, "usage": None} if self._wants_usage_apart else chunk

    def closing_events(self, chunks: list[Chunk]) -> list[Body]:
        """Return the events that come after those of all chunks: the usage, where `stream_options` asks for it."""
        return [{**self.to_response(chunks), "choices": []}] if self._wants_usage_apart else []

    @property
    def _wants_usage_apart(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the whole response for all chunks; the last of each prompt has usage and finish reason."""
        lasts = [chunk for chunk in chunks if chunk.get("usage")]
        choices = []
        for choice in (last["choices"][0] for last in lasts):
            pieces = (chunk["choices"][0] for chunk in chunks)
            text = "".join(piece["text"] for piece in pieces if piece["index"] == choice["index"])
            choices.append({**choice, "text": text})
        usage = lasts[-1]["usage"]
        if len(lasts) > 1:
            names = ("prompt_tokens", "completion_tokens", "total_tokens")
            usage = {name: sum(last["usage"][name] for last in lasts) for name in names}
        return {**lasts[-1], "choices": choices, "usage": usage}


class CompletionRequest(CompletionParameters):
    """Body of `POST /v1/completions`: texts, in which control strings count, or token ids, completed as they are."""

    prompt: (
        _Prompt
        | _TokenIds
        | Annotated[list[_Prompt], Field(min_length=1, max_length=128, fail_fast=True)]
        | Annotated[list[_TokenIds], Field(min_length=1, max_length=128, fail_fast=True)]
    ) = Field(exclude=True)

    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts = cast(list[str | list[int]], [self.prompt] if is_one else self.prompt)
        for prompt in prompts:
            if isinstance(prompt, str):
                _check_text_fits([prompt], engine, "prompt")
            elif len(prompt) > engine.header.context_length:
                raise _too_long(f"the prompt has {len(prompt):,} tokens", engine, "prompt")
        return prompts


class ChatCompletionRequest(CompletionParameters):
    """Body of `POST /v1/chat/completions`: messages, in which control strings are plain characters."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, exclude=True)]

    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        if len(self.messages) > engine.header.context_length:
            raise _too_long(f"there are {len(self.messages):,} messages", engine, "messages")
        messages: list[Any] = []
        for message in self.messages:
            role, content = message.get("role"), message.get("content")
            if role == "developer":  # the newer name
                role = "system"
            if role == "assistant" and content is None:  # as in a turn that called tools
                content = ""
            # OpenAI's clients may send a text as a list of parts.
            if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
                content = "\n".join(str(part["text"]) for part in content)
            messages.append({"role": role, "content": content})
        _check_text_fits([str(message["content"]) for message in messages], engine, "messages")
        try:
            return [engine.prompt(messages)]
        except UserError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from error

    def opening_events(self, chunk: Chunk) -> list[Body]:
        """Return an event with the role."""
        return [self._event(chunk, {"role": "assistant", "content": ""}, None)]

    def to_event(self, chunk: Chunk) -> Body:
        """Return an event with the chunk's text."""
        choice = chunk["choices"][0]
        delta = {"content": choice["text"]} if choice["text"] else {}
        return self._event(super().to_event(chunk), delta, choice["finish_reason"])

    def closing_events(self, chunks: list[Chunk]) -> list[Body]:
        """Return the events that come after those of all chunks."""
        return [{**event, "object": "chat.completion.chunk"} for event in super().closing_events(chunks)]

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


def _check_text_fits(texts: Sequence[str], engine: Engine, param: str) -> None:
    """Refuse texts that the context cannot hold whatever their tokens are, before the work of encoding them.

    Raises:
        RequestError: They are longer.
    """
    num_bytes = sum(len(text.encode()) for text in texts)
    if num_bytes > engine.max_prompt_bytes:
        raise _too_long(f"the text has {num_bytes:,} bytes", engine, param)


def _too_long(what: str, engine: Engine, param: str) -> RequestError:
    message = f"{what}: more than fits into the context of {engine.header.context_length} tokens"
    return RequestError(HTTPStatus.BAD_REQUEST, message, "context_length_exceeded", param)


def _bad_parameter(name: str, reason: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, f"`{name}`: {reason}", param=name)


def _schema_counts(schema: Any) -> Iterator[tuple[str, float]]:
    """Yield all that a JSON schema counts, with the keyword.

    Raises:
        RequestError: The schema is nested too deeply.
    """
    parts = [(schema, 0)]
    while parts:
        part, depth = parts.pop()
        if depth > _SCHEMA_DEPTH:
            raise _bad_parameter("json_schema", f"it is nested more than {_SCHEMA_DEPTH} levels deep")
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for keyword, value in items:
            if keyword in _SCHEMA_COUNTS and isinstance(value, int | float):
                yield keyword, value
            if keyword == "pattern" and isinstance(value, str):
                yield keyword, _longest_repetition(value)
            parts.append((value, depth + 1))


def _longest_repetition(pattern: str) -> int:
    """Return the largest number in the repetitions (`{3,7}`) of a grammar or a regular expression."""
    repetitions = " ".join(_REPETITION.findall(pattern))
    return max((int(digits[:19]) for digits in re.findall(r"\d+", repetitions)), default=0)


def _finite(number: str) -> float:
    # NaN and infinity are no JSON, and llama.cpp's library refuses them.
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number:.40} is not a finite number")
    return value


def _int64(digits: str) -> int:
    # llama.cpp's JSON library has no larger integers.
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{digits:.40} is too large")
    return value
