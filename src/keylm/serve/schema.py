"""The request and response schema: OpenAI's completion API, with the sampling parameters of llama.cpp."""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keylm.common.documents import Message
from keylm.common.errors import UserError
from keylm.gguf.header import GGUFHeader
from keylm.serve.engine import Chunk, Engine
from keylm.serve.logprobs import Entry, chat_logprobs, completion_logprobs
from keylm.serve.tools import call_schema, callable_functions, parse_call, spell_calls

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

_NOT_FOR_LLAMA: Any = Field(None, exclude=True)

_LENGTHS = ("max_tokens", "max_completion_tokens", "n_predict")
_COUNTS_OF_TOKENS = ("max_tokens", "n_predict", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n")
_WHOLE_TOKENS = 16
"""An answer up to this length comes as a whole where its likelihoods are asked for."""
_SCHEMA_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_GUIDANCE = {"x-guidance": {"whitespace_flexible": False}}
"""A small model would fill the context with spaces, which JSON allows almost anywhere."""
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


class _JsonSchemaFormat(BaseModel):
    # By alias, because pydantic's models have a method of this name.
    json_schema_: dict[str, Any] | None = Field(None, alias="schema")


class _ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchemaFormat | None = None

    def to_schema(self) -> Body | None:
        """The JSON schema that the answer has to follow; None if it may be any text."""
        if self.type == "text":
            return None
        schema = self.json_schema.json_schema_ if self.type == "json_schema" and self.json_schema else None
        return {"type": "object"} if schema is None else schema


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class CompletionParameters(BaseModel):
    """The fields of both completion endpoints, with their types and ranges. A field that is not listed is refused.

    Parameters that a request leaves out, or sets to null, have the defaults of the served model.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    media_type: ClassVar[str] = "text/event-stream"
    event_prefix: ClassVar[str] = "data: "
    event_suffix: ClassVar[str] = "\n\n"
    end_of_stream: ClassVar[str] = "data: [DONE]\n\n"

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

    n: Annotated[int, Field(ge=1, le=16)] | None = _NOT_FOR_LLAMA
    response_format: _ResponseFormat | None = _NOT_FOR_LLAMA
    stream_options: _StreamOptions | None = _NOT_FOR_LLAMA

    best_of: Literal[1] | None = _NOT_FOR_LLAMA
    suffix: Literal[""] | None = _NOT_FOR_LLAMA
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = _NOT_FOR_LLAMA
    function_call: Literal["none", "auto"] | None = _NOT_FOR_LLAMA

    # Fields that OpenAI's clients send and that change no answer here.
    model: Any = _NOT_FOR_LLAMA
    parallel_tool_calls: Any = _NOT_FOR_LLAMA
    reasoning_effort: Any = _NOT_FOR_LLAMA
    verbosity: Any = _NOT_FOR_LLAMA
    cache_prompt: Any = _NOT_FOR_LLAMA
    user: Any = _NOT_FOR_LLAMA
    metadata: Any = _NOT_FOR_LLAMA
    store: Any = _NOT_FOR_LLAMA
    service_tier: Any = _NOT_FOR_LLAMA
    safety_identifier: Any = _NOT_FOR_LLAMA
    prompt_cache_key: Any = _NOT_FOR_LLAMA

    @classmethod
    def parse(cls, raw: bytes | bytearray) -> Self:
        """Parse and check the body of a request.

        Raises:
            RequestError: The body breaks the schema, or is not a JSON object of Unicode text, 64-bit integers and
                finite numbers.
        """
        return cls.validate_fields(parse_json(raw))

    @classmethod
    def validate_fields(cls, body: Body) -> Self:
        """Check the fields of a request. Null is the same as absent, and so is an unknown field that asks for nothing.

        Raises:
            RequestError: They break the schema.
        """

        def asks_nothing(name: str, value: Any) -> bool:
            return value is None or (name not in cls.model_fields and not value and not isinstance(value, dict))

        try:
            return cls.model_validate({name: value for name, value in body.items() if not asks_nothing(name, value)})
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
        asked_by, schema = self.response_schema()
        self._check_grammar(context_length, asked_by, schema)
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
        if schema is not None:
            parameters["json_schema"] = {**_GUIDANCE, **schema}
        if self.num_top_logprobs is not None:
            parameters["n_probs"] = max(1, self.num_top_logprobs)
            # llama.cpp streams no likelihoods for a token that is a part of a character only.
            parameters["stream"] = parameters.get("max_tokens", context_length) > _WHOLE_TOKENS
        requests = []
        for prompt in self._prompts(engine):
            for number in range(self.n or 1):
                # Otherwise all answers to a prompt would be the same.
                seed = {"seed": self.seed + number} if self.seed is not None else {}
                requests.append({**parameters, **seed, "prompt": prompt})
        return requests

    def response_schema(self) -> tuple[str, Body | None]:
        """The JSON schema that the answer has to follow, if any, and the field that asks for it."""
        if self.response_format and (schema := self.response_format.to_schema()) is not None:
            return "response_format", schema
        return "json_schema", self.json_schema

    @property
    def num_top_logprobs(self) -> int | None:
        """How many of the likeliest tokens to report at each; None if no likelihoods are asked for."""
        return None

    def answer(
        self,
        engine: Engine,
        llama_request: Body,
        on_chunk: Callable[[Chunk], bool | None],
        is_stopped: Callable[[], bool],  # noqa: ARG002
    ) -> None:
        """Generate one of the answers.

        Args:
            engine: The model.
            llama_request: One of the requests of `to_llama`.
            on_chunk: As for `Engine.complete`.
            is_stopped: Whether nobody waits for the answer any more.

        Raises:
            EngineError: See `Engine.complete`.
        """
        engine.complete(llama_request, on_chunk)

    @abstractmethod
    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        """The texts or token ids to complete.

        Raises:
            RequestError: One cannot be encoded or is longer than the context.
        """

    def _check_grammar(self, context_length: int, asked_by: str, schema: Body | None) -> None:
        """Refuse a grammar or a schema that counts beyond the context: it would be unrolled in memory.

        Raises:
            RequestError: It does, or it is not one that llama.cpp checks.
        """
        if self.grammar and schema is not None:
            raise bad_parameter("grammar", "a request has a grammar or a JSON schema, not both")
        # To llama.cpp this prefix means another language, in which it ignores a grammar with an error.
        if self.grammar and self.grammar.lstrip().startswith("%llguidance"):
            raise bad_parameter("grammar", "a grammar is written in GBNF")
        if (repetitions := _longest_repetition(self.grammar or "")) > context_length:
            message = f"{repetitions} repetitions are beyond the context of {context_length} tokens"
            raise bad_parameter("grammar", message)
        if schema is None:
            return
        for keyword, count in _schema_counts(schema, asked_by):
            if count > context_length:
                message = f"{keyword} is {count}, beyond the context of {context_length} tokens"
                raise bad_parameter(asked_by, message)
        if len(json.dumps(schema)) > _SCHEMA_CHARACTERS:
            raise bad_parameter(asked_by, f"it is longer than {_SCHEMA_CHARACTERS:,} characters")

    def opening_events(self, chunk: Chunk) -> list[Body]:  # noqa: ARG002
        """Return the events that come before that of the first chunk."""
        return []

    def to_event(self, chunk: Chunk) -> Body:
        """Return the event of a stream for a chunk. llama.cpp's chunks have OpenAI's shape."""
        choice = chunk["choices"][0]
        logprobs = self._logprobs(choice["logprobs"]["content"]) if choice["logprobs"] else None
        usage = {"usage": None} if self._wants_usage_apart else {}
        return {**chunk, **usage, "choices": [{**choice, "logprobs": logprobs}]}

    def closing_events(self, chunks: list[Chunk]) -> list[Body]:
        """Return the events that come after those of all chunks: the usage, where `stream_options` asks for it."""
        return [{**self.to_response(chunks), "choices": []}] if self._wants_usage_apart else []

    @property
    def _wants_usage_apart(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the whole response for all chunks; the last of each choice has usage and finish reason."""
        lasts = [chunk for chunk in chunks if chunk.get("usage")]
        choices = []
        for last in (last["choices"][0] for last in lasts):
            pieces = [piece for chunk in chunks if (piece := chunk["choices"][0])["index"] == last["index"]]
            text = "".join(piece["text"] for piece in pieces)
            entries = [entry for piece in pieces for entry in (piece["logprobs"] or {}).get("content", [])]
            choices.append({**last, "text": text, "logprobs": self._logprobs(entries)})
        prompt_tokens = sum(last["usage"]["prompt_tokens"] for last in lasts[:: self.n or 1])
        completion_tokens = sum(last["usage"]["completion_tokens"] for last in lasts)
        usage = {
            **lasts[-1]["usage"],
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        return {**lasts[-1], "choices": choices, "usage": usage}

    def _logprobs(self, entries: list[Entry]) -> Body | None:  # noqa: ARG002
        """The likelihoods of tokens in the shape of the endpoint; None if they were not asked for."""
        return None


class CompletionRequest(CompletionParameters):
    """Body of `POST /v1/completions`: texts, in which control strings count, or token ids, completed as they are."""

    prompt: (
        _Prompt
        | _TokenIds
        | Annotated[list[_Prompt], Field(min_length=1, max_length=128, fail_fast=True)]
        | Annotated[list[_TokenIds], Field(min_length=1, max_length=128, fail_fast=True)]
    ) = Field(exclude=True)
    echo: bool | None = _NOT_FOR_LLAMA
    logprobs: Literal[False] | Annotated[int, Field(ge=0, le=20)] | None = _NOT_FOR_LLAMA

    @property
    def num_top_logprobs(self) -> int | None:
        """How many of the likeliest tokens to report at each; None if no likelihoods are asked for."""
        return None if self.logprobs is None or self.logprobs is False else self.logprobs

    def answer(
        self,
        engine: Engine,
        llama_request: Body,
        on_chunk: Callable[[Chunk], bool | None],
        is_stopped: Callable[[], bool],
    ) -> None:
        """Generate one of the answers. With `echo`, the prompt comes before it, with its likelihoods if asked for."""
        if not self.echo:
            engine.complete(llama_request, on_chunk)
            return
        prompt: str | list[int] = llama_request["prompt"]
        ids = engine.prompt_of_text(prompt) if isinstance(prompt, str) else prompt
        text = prompt if isinstance(prompt, str) else engine.header.tokenizer.decode(prompt, keep_control=True)
        entries = [] if self.num_top_logprobs is None else engine.score(ids, max(1, self.num_top_logprobs), is_stopped)
        has_echoed = False

        def pass_on(chunk: Chunk) -> bool | None:
            nonlocal has_echoed
            if "choices" in chunk and not has_echoed:
                has_echoed = True
                echo = {**chunk["choices"][0], "text": text, "logprobs": {"content": entries}, "finish_reason": None}
                if llama_request.get("stream") is False:
                    _fill_in_logprobs(chunk)
                if on_chunk({**chunk, "choices": [echo], "usage": None}):
                    return True
            return on_chunk(chunk)

        engine.complete(llama_request, pass_on)

    def _logprobs(self, entries: list[Entry]) -> Body | None:
        return None if self.num_top_logprobs is None else completion_logprobs(entries, self.num_top_logprobs)

    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        prompts = cast(list[str | list[int]], [self.prompt] if is_one else self.prompt)
        for prompt in prompts:
            if isinstance(prompt, str):
                _check_text_fits([prompt], engine, "prompt")
            elif len(prompt) > engine.header.context_length:
                raise _too_long(f"the prompt has {len(prompt):,} tokens", engine, "prompt")
            elif max(prompt) >= engine.header.tokenizer.vocab_size:
                raise bad_parameter("prompt", f"there is no token {max(prompt)}")
        return prompts


class ChatCompletionRequest(CompletionParameters):
    """Body of `POST /v1/chat/completions`: messages, in which control strings are plain characters."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, exclude=True)]
    logprobs: bool | None = _NOT_FOR_LLAMA
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = _NOT_FOR_LLAMA
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = _NOT_FOR_LLAMA
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = _NOT_FOR_LLAMA

    def response_schema(self) -> tuple[str, Body | None]:
        """The JSON schema that the answer has to follow, if any, and the field that asks for it."""
        return ("tools", call_schema(self._functions)) if self._functions else super().response_schema()

    @property
    def num_top_logprobs(self) -> int | None:
        """How many of the likeliest tokens to report at each; None if no likelihoods are asked for."""
        return self.top_logprobs or 0 if self.logprobs else None

    @cached_property
    def _functions(self) -> list[Body]:
        """The functions of which the answer must call one; none if it may be words."""
        try:
            return callable_functions(self.tools or [], self.tool_choice)
        except ValueError as error:
            raise bad_parameter("tool_choice", str(error)) from error

    def _prompts(self, engine: Engine) -> Sequence[str | list[int]]:
        if len(self.messages) > engine.header.context_length:
            raise _too_long(f"there are {len(self.messages):,} messages", engine, "messages")
        messages = [_plain_message(message) for message in self.messages]
        _check_text_fits([str(message["content"]) for message in messages], engine, "messages")
        try:
            return [engine.prompt(cast(list[Message], messages))]
        except UserError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error), param="messages") from error

    def opening_events(self, chunk: Chunk) -> list[Body]:
        """Return an event with the role."""
        without_logprobs = {**chunk["choices"][0], "logprobs": None}
        return [self._event({**chunk, "choices": [without_logprobs]}, {"role": "assistant", "content": ""}, None)]

    def to_event(self, chunk: Chunk) -> Body:
        """Return an event with the chunk's text; that of a call of a tool comes at the end, as a whole."""
        event = super().to_event(chunk)
        choice = event["choices"][0]
        if self._functions:
            return self._event(event, {}, None)
        return self._event(event, {"content": choice["text"]} if choice["text"] else {}, choice["finish_reason"])

    def closing_events(self, chunks: list[Chunk]) -> list[Body]:
        """Return the events that come after those of all chunks."""
        calls = []
        for choice in self.to_response(chunks)["choices"] if self._functions else []:
            message = choice["message"]
            delta = {name: message[name] for name in ("content", "tool_calls") if message.get(name)}
            for index, call in enumerate(delta.get("tool_calls", [])):
                call["index"] = index
            chunk = {**chunks[-1], "choices": [choice], "usage": None}
            calls.append(self._event(chunk, delta, choice["finish_reason"]))
        return [*calls, *({**event, "object": "chat.completion.chunk"} for event in super().closing_events(chunks))]

    @staticmethod
    def _event(chunk: Chunk, delta: Body, reason: str | None) -> Body:
        choice = chunk["choices"][0]
        choice = {"index": choice["index"], "delta": delta, "logprobs": choice["logprobs"], "finish_reason": reason}
        return {**chunk, "object": "chat.completion.chunk", "choices": [choice]}

    def to_response(self, chunks: list[Chunk]) -> Body:
        """Return the answers as messages of the assistant."""
        completion = super().to_response(chunks)
        choices = [self._to_choice(choice) for choice in completion["choices"]]
        return {**completion, "object": "chat.completion", "choices": choices}

    def _to_choice(self, choice: Body) -> Body:
        message: Body = {"role": "assistant", "content": choice["text"]}
        reason = choice["finish_reason"]
        if self._functions and (call := parse_call(choice["text"])):
            message, reason = {**message, "content": None, "tool_calls": [call]}, "tool_calls"
        return {"index": choice["index"], "message": message, "logprobs": choice["logprobs"], "finish_reason": reason}

    def _logprobs(self, entries: list[Entry]) -> Body | None:
        return None if self.num_top_logprobs is None else chat_logprobs(entries, self.num_top_logprobs)


_ROLES = {"developer": "system", "tool": "user", "function": "user"}
"""Roles of OpenAI's that the model does not know, with those that it reads them as."""


def _plain_message(message: Body) -> Body:
    """A message of OpenAI's API as one that the model knows; what it makes no sense of is left for the check."""
    role, content = message.get("role"), message.get("content")
    if role == "assistant" and not content:
        calls = message.get("tool_calls")
        content = spell_calls(calls) if isinstance(calls, list) else ""
    # OpenAI's clients may send a text as a list of parts.
    if isinstance(content, list) and all(isinstance(part, dict) and "text" in part for part in content):
        content = "\n".join(str(part["text"]) for part in content)
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def parse_json(raw: bytes | bytearray) -> Body:
    """Parse the body of a request.

    Raises:
        RequestError: The body is not a JSON object of Unicode text, 64-bit integers and finite numbers.
    """
    try:
        body = json.loads(raw, parse_int=_int64, parse_float=_finite, parse_constant=_finite)
        json.dumps(body, ensure_ascii=False).encode()  # fails on lone surrogates, which JSON can escape
    except (ValueError, RecursionError) as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")
    return body


def _fill_in_logprobs(chunk: Chunk) -> None:
    """Have one entry for each token of a whole answer: llama.cpp leaves out the first bytes of a character."""
    choice = chunk["choices"][0]
    entries = (choice["logprobs"] or {}).get("content", [])
    num_missing = chunk["usage"]["completion_tokens"] - len(entries)
    choice["logprobs"] = {"content": [*entries, *[{"bytes": [], "logprob": None, "top_logprobs": []}] * num_missing]}


def model_body(header: GGUFHeader, created: int) -> Body:
    """Describe a model: its context length (tokens), sampling defaults and example requests.

    `created` is in seconds since 1970.
    """
    meta = {
        "context_length": header.context_length,
        "temperature": header.temperature,
        "repetition_penalty": header.repetition_penalty,
        "examples": header.examples,
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


def bad_parameter(name: str, reason: str) -> RequestError:
    """The refusal of a field of a request."""
    return RequestError(HTTPStatus.BAD_REQUEST, f"`{name}`: {reason}", param=name)


def _schema_counts(schema: Any, asked_by: str) -> Iterator[tuple[str, float]]:
    """Yield all that a JSON schema counts, with the keyword.

    Raises:
        RequestError: The schema is nested too deeply.
    """
    parts = [(schema, 0)]
    while parts:
        part, depth = parts.pop()
        if depth > _SCHEMA_DEPTH:
            raise bad_parameter(asked_by, f"it is nested more than {_SCHEMA_DEPTH} levels deep")
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
