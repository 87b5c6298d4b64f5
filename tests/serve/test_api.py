"""What clients ask beyond plain text: JSON, calls of tools, likelihoods, several answers, and Ollama's API."""

from __future__ import annotations

import json
import math
import urllib.request

import jsonschema
import openai
import pytest
import torch
from helpers.tiny_server import post
from lm_eval.api.instance import Instance
from pydantic import BaseModel

from keylm.model.transformer import load_model
from keylm.run import Run
from keylm.serve.engine import Engine
from keylm.serve.server import Server
from keylm.serve.tools import parse_call

MESSAGES = [{"role": "user", "content": "What is the weather in Paris?"}]
CHAT = {"model": "any", "messages": MESSAGES, "temperature": 0, "max_tokens": 60}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5, "pattern": "^[a-z]*$"}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
TOLERANCE = 0.25
"""Nats by which `Q8_0` may differ from the weights that it was made from."""
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def _json_schema(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "schema", "strict": True, "schema": schema}}


class Visit(BaseModel):
    """What the client's own `parse` is asked for; it refers to another schema."""

    class Place(BaseModel):
        rainy: bool

    place: Place


def test_an_answer_may_have_to_be_json(client: openai.OpenAI) -> None:
    for seed in range(3):
        answer = client.chat.completions.create(
            **{**CHAT, "temperature": 1, "max_tokens": 200}, seed=seed, response_format={"type": "json_object"}
        )
        text = answer.choices[0].message.content
        assert text.startswith("{")
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_may_have_to_follow_a_schema(client: openai.OpenAI, stream: bool) -> None:
    """It does without spaces, of which a small model may write nothing else."""
    answer = client.chat.completions.create(**CHAT, response_format=_json_schema(CITY), stream=stream)
    text = (
        "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        if stream
        else answer.choices[0].message.content
    )
    jsonschema.validate(json.loads(text), CITY)
    assert "\n" not in text


def test_the_client_parses_its_own_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(**CHAT, response_format=Visit)
    assert isinstance(answer.choices[0].message.parsed, Visit)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": _json_schema({"type": "wizard"})}, "response_format"),
        ({"response_format": _json_schema({"minItems": 1e9})}, "response_format"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "grammar"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_choice"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_the_field_that_asks(server: Server, change: dict, param: str) -> None:
    status, answer = post(server, "/v1/chat/completions", {**CHAT, **change})
    assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_is_required_is_made(client: openai.OpenAI, choice: object) -> None:
    tools = [WEATHER] if choice == "required" else [WEATHER, CLOCK]
    answer = client.chat.completions.create(**CHAT, tools=tools, tool_choice=choice, parallel_tool_calls=False)
    (call,) = answer.choices[0].message.tool_calls
    assert (answer.choices[0].finish_reason, call.type, call.function.name) == ("tool_calls", "function", "get_weather")
    assert answer.choices[0].message.content is None
    jsonschema.validate(json.loads(call.function.arguments), CITY)

    chunks = list(client.chat.completions.create(**CHAT, tools=tools, tool_choice=choice, stream=True))
    (streamed,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert streamed.function.arguments == call.function.arguments
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["tool_calls"]


def test_a_tool_may_refer_to_its_definitions(client: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Visit)
    answer = client.chat.completions.create(**CHAT, tools=[tool, WEATHER], tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls"
    answer = client.chat.completions.create(
        **CHAT, tools=[tool], tool_choice={"type": "function", "function": {"name": "Visit"}}
    )
    Visit.model_validate_json(answer.choices[0].message.tool_calls[0].function.arguments)


def test_where_a_call_is_free_the_answer_is_in_words(client: openai.OpenAI) -> None:
    plain = client.chat.completions.create(**CHAT)
    for extra in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        answer = client.chat.completions.create(**CHAT, tools=[WEATHER, {"type": "web_search"}], **extra)
        assert answer.choices[0].message == plain.choices[0].message


def test_a_call_that_is_cut_off_is_none(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**{**CHAT, "max_tokens": 3}, tools=[WEATHER], tool_choice="required")
    assert (answer.choices[0].finish_reason, answer.choices[0].message.tool_calls) == ("length", None)
    assert parse_call(answer.choices[0].message.content) is None


def test_calls_and_results_are_read(client: openai.OpenAI, engine: Engine) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ]
    answer = client.chat.completions.create(**{**CHAT, "messages": [*MESSAGES, *turns], "max_tokens": 1})
    spelled = [
        {"role": "assistant", "content": '{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}'},
        {"role": "user", "content": "It rains."},
    ]
    assert answer.usage.prompt_tokens == len(engine.prompt([*MESSAGES, *spelled]))


def test_several_answers_differ_and_have_their_index(client: openai.OpenAI) -> None:
    settings = {**CHAT, "temperature": 1, "max_tokens": 12, "seed": 3}
    one = client.chat.completions.create(**settings)
    several = client.chat.completions.create(**settings, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert texts[0] == one.choices[0].message.content
    assert several.usage.prompt_tokens == one.usage.prompt_tokens
    streamed, roles = [""] * 3, [0] * 3
    for chunk in client.chat.completions.create(**settings, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        roles[chunk.choices[0].index] += chunk.choices[0].delta.role == "assistant"
    assert (streamed, roles) == (texts, [1, 1, 1])
    answers = client.completions.create(model="any", prompt=[[5], [6]], n=2, max_tokens=3)
    assert [choice.index for choice in answers.choices] == [0, 1, 2, 3]
    assert answers.usage.prompt_tokens == 2


@pytest.fixture(scope="module")
def likelihoods(exported: Run) -> torch.nn.Module:
    """The model that was exported, in float32."""
    return load_model(exported.recipe.model, exported.weights("sft"))


def _logprobs(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    return model.logits(torch.tensor([ids]))[0].log_softmax(-1)


def test_likelihoods_of_a_prompt_are_the_models(
    client: openai.OpenAI, engine: Engine, likelihoods: torch.nn.Module
) -> None:
    """Every kind of token: of control, of a part of a character, of words."""
    ids = [*engine.prompt_of_text("<|im_start|>user\nThe tide, 潮 and é<|im_end|>"), 7, 200]
    answer = client.completions.create(model="any", prompt=ids, echo=True, logprobs=2, max_tokens=1, temperature=0)
    reported = answer.choices[0].logprobs
    assert len(reported.tokens) == len(reported.token_logprobs) == len(reported.top_logprobs) == len(ids) + 1
    assert reported.token_logprobs[0] is None
    expected = _logprobs(likelihoods, ids)
    for position, token in enumerate(ids[1:]):
        assert math.isclose(reported.token_logprobs[position + 1], expected[position, token], abs_tol=TOLERANCE)
    assert max(reported.top_logprobs[-1].values()) == reported.token_logprobs[-1]


def test_a_prompt_is_echoed(client: openai.OpenAI) -> None:
    settings = {"model": "any", "max_tokens": 4, "temperature": 0}
    for prompt, text in (("The <|im_start|>tide", "The <|im_start|>tide"), ([5, 6], None)):
        plain = client.completions.create(prompt=prompt, **settings).choices[0].text
        echoed = client.completions.create(prompt=prompt, echo=True, **settings).choices[0].text
        assert echoed.endswith(plain)
        assert text is None or echoed == text + plain
        streamed = client.completions.create(prompt=prompt, echo=True, stream=True, **settings)
        assert "".join(chunk.choices[0].text for chunk in streamed) == echoed


@pytest.mark.parametrize("stream", [False, True])
def test_likelihoods_of_an_answer_are_the_models(
    client: openai.OpenAI, engine: Engine, likelihoods: torch.nn.Module, stream: bool
) -> None:
    settings = {**CHAT, "max_tokens": 3, "logprobs": True, "top_logprobs": 3}
    answer = client.chat.completions.create(**settings, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content or []]
    expected = _logprobs(likelihoods, engine.prompt(MESSAGES))[-1].topk(3).values
    assert entries
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    if not stream or len(entries) == 3:
        for token, value in zip(entries[0].top_logprobs, expected, strict=True):
            assert math.isclose(token.logprob, value, abs_tol=TOLERANCE)


def test_lm_eval_measures_the_same(server: Server, exported: Run, engine: Engine, likelihoods: torch.nn.Module) -> None:
    """Its `local-completions`, which sends token ids, and asks for the likelihoods of the prompt."""
    pytest.importorskip("tenacity")
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(
        model="any",
        base_url=f"{server.url}/v1/completions",
        tokenizer=str(exported.stage("tokenizer")),
        max_length=engine.header.context_length,
        num_concurrent=1,
    )
    pairs = [("The tide comes", " and the tide goes"), ("A river", " runs to the sea")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    for (context, continuation), (logprob, _) in zip(pairs, model.loglikelihood(requests), strict=True):
        ids, start = engine.prompt_of_text(context + continuation), len(engine.prompt_of_text(context))
        values = _logprobs(likelihoods, ids)
        expected = sum(values[position - 1, ids[position]] for position in range(start, len(ids)))
        assert math.isclose(logprob, expected, abs_tol=TOLERANCE * len(ids))
    arguments = {"until": ["\n\n"], "max_gen_toks": 4, "temperature": 0}
    (text,) = model.generate_until([Instance("generate_until", {}, ("The tide", arguments), 0)])
    assert isinstance(text, str)


OPEN_WEBUI = [
    {
        "stream": True,
        "model": "any",
        "messages": MESSAGES,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "max_tokens": 4,
        "frequency_penalty": 0,
        "stop": [],
    },
    {"model": "any", "messages": MESSAGES, "stream": False, "max_completion_tokens": 4, "reasoning_effort": "low"},
]
"""As `backend/open_webui/routers/openai.py` and its tasks (titles, tags) send them."""
LANGCHAIN = [
    {"model": "any", "messages": MESSAGES, "stream": False, "n": 1, "temperature": 0.7, "max_completion_tokens": 4},
    {"model": "any", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}, "stop": None},
    {
        "model": "any",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "Weather?", "name": "me"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "content": "It rains.", "tool_call_id": "1"},
        ],
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "stream": False,
    },
    {
        "model": "any",
        "messages": MESSAGES,
        "response_format": _json_schema(CITY),
    },
]
"""As `BaseChatOpenAI` of `langchain_openai` sends them: plain, streamed, with tools, for structured output."""


@pytest.mark.parametrize("body", [*OPEN_WEBUI, *LANGCHAIN])
def test_bodies_of_other_programs_are_answered(server: Server, body: dict) -> None:
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 200
        assert response.read().rstrip().endswith(b"data: [DONE]" if body.get("stream") else b"}")


def test_langchains_completions_are_answered(server: Server) -> None:
    """As `BaseOpenAI` of `langchain_openai` sends them."""
    numbers = {"temperature": 0.7, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "n": 1, "max_tokens": 4}
    body = {"model": "any", "prompt": ["The tide", "A river"], **numbers, "logit_bias": {}, "logprobs": None}
    status, answer = post(server, "/v1/completions", body)
    assert (status, len(answer["choices"])) == (200, 2)


def test_ollama_lists_the_model(server: Server, engine: Engine) -> None:
    with urllib.request.urlopen(f"{server.url}/api/tags") as response:
        (model,) = json.load(response)["models"]
    assert (model["name"], model["size"]) == (engine.header.name, engine.path.stat().st_size)
    assert len(model["digest"]) == 64
    with urllib.request.urlopen(f"{server.url}/api/version") as response:
        assert json.load(response)["version"]


def test_ollama_chats(server: Server) -> None:
    body = {"model": "any", "messages": MESSAGES, "options": {"temperature": 0, "num_predict": 9, "num_ctx": 4096}}
    expected = post(server, "/v1/chat/completions", {"messages": MESSAGES, "temperature": 0, "max_tokens": 9})[1]
    status, whole = post(server, "/api/chat", {**body, "stream": False, "keep_alive": "5m", "think": False})
    assert (status, whole["done"]) == (200, True)
    assert whole["message"] == {"role": "assistant", "content": expected["choices"][0]["message"]["content"]}
    assert whole["eval_count"] == expected["usage"]["completion_tokens"]
    assert whole["prompt_eval_count"] == expected["usage"]["prompt_tokens"]
    assert whole["done_reason"] == expected["choices"][0]["finish_reason"]

    request = urllib.request.Request(f"{server.url}/api/chat", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as response:
        assert response.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in response]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
    assert lines[-1]["eval_count"] == whole["eval_count"]


def test_ollama_answers_in_json(server: Server) -> None:
    body = {"model": "any", "messages": MESSAGES, "stream": False, "format": CITY, "tools": [WEATHER]}
    status, answer = post(server, "/api/chat", body)
    assert status == 200
    jsonschema.validate(json.loads(answer["message"]["content"]), CITY)
    assert post(server, "/api/chat", {**body, "format": "json"})[1]["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {"temperature": "hot"}}, "temperature"),
        ({"options": 5}, "options"),
        ({"format": "xml"}, "format"),
        ({"messages": [{"role": "user", "content": "What is this?", "images": ["aGk="]}]}, "reads no images"),
        ({"messages": "hi"}, "messages"),
    ],
)
def test_ollamas_errors_are_texts(server: Server, change: dict, words: str) -> None:
    status, answer = post(server, "/api/chat", {"model": "any", "messages": MESSAGES, **change})
    assert status == 400
    assert words in answer["error"]
