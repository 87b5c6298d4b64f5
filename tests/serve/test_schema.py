"""The shapes of OpenAI's API: what its clients send beyond the plain case, and what is refused by name."""

from __future__ import annotations

import json
import urllib.request

import jsonschema
import openai
import pytest
from helpers.tiny_server import post

from keylm.serve.engine import Engine
from keylm.serve.schema import ChatCompletionRequest, CompletionRequest
from keylm.serve.server import Server

MESSAGES = [{"role": "user", "content": "What is a tide?"}]
CHAT = {"messages": MESSAGES, "temperature": 0, "max_tokens": 8, "ignore_eos": True}
UNKNOWN_FIELDS = ("audio", "prediction", "web_search_options", "anything_that_comes")


@pytest.fixture(scope="module")
def plain_text(server: Server) -> str:
    """The answer to `CHAT`."""
    status, answer = post(server, "/v1/chat/completions", CHAT)
    assert status == 200
    return answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", [*sorted(ChatCompletionRequest.model_fields.keys() - CHAT.keys()), *UNKNOWN_FIELDS])
def test_null_is_absent(server: Server, plain_text: str, name: str) -> None:
    status, answer = post(server, "/v1/chat/completions", {**CHAT, name: None})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, plain_text)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1},
        {"best_of": 1},
        {"echo": False},
        {"suffix": ""},
        {"logprobs": False},
        {"top_logprobs": 0},
        {"tools": []},
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"functions": []},
        {"function_call": "none"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"reasoning_effort": "none"},
        {"service_tier": "auto"},
        {"cache_prompt": True},
        {"stream": False},
        {"stream_options": {}},
        {"stop": ""},
        {"stop": [""]},
        {"stop": []},
        {"stop": ["", "@@@"]},
        {"grammar": ""},
        {"logit_bias": {}},
        {"logit_bias": []},
    ],
)
def test_what_asks_for_nothing_changes_nothing(server: Server, plain_text: str, change: dict) -> None:
    status, answer = post(server, "/v1/chat/completions", {**CHAT, **change})
    assert (status, answer["choices"][0]["message"]["content"]) == (200, plain_text)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_minus_one_is_no_limit(server: Server, engine: Engine, name: str) -> None:
    status, answer = post(server, "/v1/completions", {"prompt": [5], "ignore_eos": True, name: -1})
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] >= engine.header.context_length - 1


def test_a_model_is_retrieved_by_its_name(client: openai.OpenAI, server: Server, engine: Engine) -> None:
    assert client.models.retrieve(engine.header.name) == client.models.list().data[0]
    with urllib.request.urlopen(f"{server.url}/v1/models/") as response:
        assert response.status == 200
    with pytest.raises(openai.NotFoundError, match=engine.header.name) as caught:
        client.models.retrieve("gpt-99")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("prompts", [["The tide", "A river"], [[5, 6, 7], [8]], ["One"], [[9]]])
def test_a_list_of_prompts_gets_a_list_of_answers(client: openai.OpenAI, prompts: list) -> None:
    settings = {"model": "any", "temperature": 0, "max_tokens": 5, "extra_body": {"ignore_eos": True}}
    single = [client.completions.create(prompt=prompt, **settings) for prompt in prompts]
    several = client.completions.create(prompt=prompts, **settings)
    assert [choice.index for choice in several.choices] == list(range(len(prompts)))
    assert [choice.text for choice in several.choices] == [answer.choices[0].text for answer in single]
    assert several.usage.prompt_tokens == sum(answer.usage.prompt_tokens for answer in single)
    assert several.usage.completion_tokens == 5 * len(prompts)
    texts = [""] * len(prompts)
    for chunk in client.completions.create(prompt=prompts, stream=True, **settings):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in several.choices]


def test_usage_comes_apart_where_it_is_asked_for(client: openai.OpenAI) -> None:
    settings = {"model": "any", "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    for chunks in (
        list(client.chat.completions.create(messages=MESSAGES, **settings)),
        list(client.completions.create(prompt=[[5], [6]], **settings)),
    ):
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens >= 1
        assert chunks[-1].object == chunks[0].object
        assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])


def test_a_developer_is_the_system(server: Server) -> None:
    answers = [
        post(server, "/v1/chat/completions", {**CHAT, "messages": [{"role": role, "content": "Be brief."}, *MESSAGES]})
        for role in ("system", "developer")
    ]
    assert answers[0][1]["choices"] == answers[1][1]["choices"]
    assert answers[0][1]["usage"]["prompt_tokens"] == answers[1][1]["usage"]["prompt_tokens"]


@pytest.mark.parametrize("turn", [{"role": "assistant"}, {"role": "assistant", "content": None, "tool_calls": []}])
def test_a_turn_of_the_assistant_may_be_empty(server: Server, engine: Engine, turn: dict) -> None:
    status, answer = post(server, "/v1/chat/completions", {**CHAT, "messages": [*MESSAGES, turn, *MESSAGES]})
    assert status == 200
    empty = {"role": "assistant", "content": ""}
    assert answer["usage"]["prompt_tokens"] == len(engine.prompt([*MESSAGES, empty, *MESSAGES]))


def test_a_bias_has_two_forms(server: Server) -> None:
    bodies = [{"prompt": [5], "max_tokens": 3, "logit_bias": bias} for bias in ({"7": 100}, [[7, 100]], [[7, 100.0]])]
    texts = {post(server, "/v1/completions", body)[1]["choices"][0]["text"] for body in bodies}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "wizard"}, "wizard"),
        ({"type": 5}, "type"),
        ({"type": "string", "pattern": "^("}, "unclosed group"),
        ({"$ref": "#/nothing"}, "nothing"),
        ({"enum": []}, ""),
        ({"type": "object", "properties": 5}, "properties"),
        ({"type": "array", "minItems": 10**9}, "minItems is 1000000000, beyond the context"),
        ({"properties": {"a": {"anyOf": [{"maxLength": 1e9}]}}}, "maxLength"),
        ({"type": "string", "pattern": "a{7}b{3,1000000}"}, "pattern is 1000000, beyond the context"),
        ({"type": "string", "description": "x" * 10_000}, "longer than 10,000 characters"),
        ([], "json_schema"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_schema_is_refused(server: Server, schema: object, words: str, stream: bool) -> None:
    """Never is it ignored: free text would come where its reader expects an object."""
    status, answer = post(server, "/v1/completions", {"prompt": [5], "json_schema": schema, "stream": stream})
    assert (status, answer["error"]["param"]) == (400, "json_schema")
    assert words in answer["error"]["message"]


def test_an_answer_never_leaves_its_schema(server: Server) -> None:
    """No text follows a schema that is nothing but itself. llama.cpp would give it up without a word."""
    body = {"prompt": [5], "json_schema": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "max_tokens": 8}
    status, answer = post(server, "/v1/completions", body)
    assert (status, answer["error"]["param"]) == (400, "json_schema")
    assert "cannot follow" in answer["error"]["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        {"type": "object", "properties": {"é": {"type": "boolean"}}, "required": ["é"], "additionalProperties": False},
        {"enum": ["tide", "wave", "sea"]},
        {"type": "string", "pattern": "^[a-z]{2,5}$"},
        {"anyOf": [{"type": "null"}, {"const": {"a": [1, "ü"]}}]},
    ],
)
def test_an_answer_follows_its_schema(server: Server, schema: dict) -> None:
    body = {"prompt": [5], "json_schema": schema, "temperature": 1, "max_tokens": 60}
    for seed in range(5):
        status, answer = post(server, "/v1/completions", {**body, "seed": seed})
        assert status == 200
        if answer["choices"][0]["finish_reason"] == "stop":
            jsonschema.validate(json.loads(answer["choices"][0]["text"]), schema)


@pytest.mark.parametrize("depth", [65, 100, 300, 900])
def test_a_deep_schema_is_refused(server: Server, depth: int) -> None:
    schema: dict = {}
    for _ in range(depth):
        schema = {"items": schema}
    status, answer = post(server, "/v1/completions", {"prompt": [5], "json_schema": schema})
    assert (status, answer["error"]["message"]) == (400, "`json_schema`: it is nested more than 64 levels deep")


@pytest.mark.parametrize("depth", [*range(900, 1010, 3), 3000, 100_000])
def test_json_of_every_depth_gets_an_answer(server: Server, depth: int) -> None:
    """Wherever a recursion ends, it is the request's fault, or nobody's."""
    deep = b"[" * depth + b"]" * depth
    for field in (
        b'"json_schema": {"enum": ',
        b'"metadata": {"a": ',
        b'"logit_bias": {"a": ',
        b'"stream_options": {"a": ',
    ):
        status, answer = post(server, "/v1/completions", b'{"prompt": [5], "max_tokens": 1, ' + field + deep + b"}}")
        assert status in (200, 400)
        assert status == 200 or answer["error"]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grammar": "root ::= nothing"}, "grammar"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "root ::= [a-z]{1000000}"}, "1000000 repetitions are beyond the context"),
        ({"grammar": "root ::= [a-z]{ , 99999 }"}, "99999 repetitions"),
        ({"grammar": "x" * 10_001}, "grammar"),
        ({"grammar": "%llguidance {}\nstart: /./"}, "GBNF"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "not both"),
    ],
)
def test_a_bad_grammar_is_refused(server: Server, change: dict, words: str) -> None:
    status, answer = post(server, "/v1/completions", {"prompt": [5], **change})
    assert status == 400
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    "name", ["max_tokens", "n_predict", "top_k", "repeat_last_n", "dry_allowed_length", "dry_penalty_last_n"]
)
def test_counts_beyond_the_context_are_the_context(server: Server, engine: Engine, name: str) -> None:
    """None of them is memory that llama.cpp allocates."""
    body = {"prompt": [5], "max_tokens": 2, "dry_multiplier": 1, name: 2**31 - 1}
    (request,) = CompletionRequest.parse(json.dumps(body).encode()).to_llama(engine)
    assert request[name] <= max(engine.header.context_length, engine.header.tokenizer.vocab_size)
    assert post(server, "/v1/completions", body)[0] == 200


@pytest.mark.parametrize("name", ["repeat_last_n", "dry_penalty_last_n"])
def test_minus_one_looks_back_to_the_start(server: Server, engine: Engine, name: str) -> None:
    body = {"prompt": [5], "max_tokens": 2, "repeat_penalty": 1.1, "dry_multiplier": 1, name: -1}
    (request,) = CompletionRequest.parse(json.dumps(body).encode()).to_llama(engine)
    assert request[name] == engine.header.context_length
    assert post(server, "/v1/completions", body)[0] == 200
