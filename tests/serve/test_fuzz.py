"""Whatever clients send, each gets an answer or a refusal, memory stays below a ceiling, and the next one is served."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psutil
import pytest
from helpers.tiny_server import post, running, until
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.gguf.locate import find_gguf
from keylm.run import Run
from keylm.serve.admission import Limits
from keylm.serve.engine import Engine
from keylm.serve.schema import ChatCompletionRequest
from keylm.serve.server import Server

MESSAGES = [{"role": "user", "content": "What is a tide?"}]
ENDED = {200, 400, 503, 504}
LIMITS = Limits(answer_seconds=10, stall_seconds=5, silence_seconds=1, head_seconds=1, body_seconds=2)
CEILING = 3_500_000_000
"""Bytes that the process of llama.cpp may have: its limit is 2 GiB beyond what the loaded model takes."""
GROWTH = 300_000_000
"""Bytes by which the server itself may grow."""

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=5), values, max_size=3)),
    max_leaves=5,
)
NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 0.5, 1e-30, 1e30, 2**31 - 1, 2**31, 2**63 - 1]), st.integers(), st.floats()
)
VALUES = st.one_of(JSON, NUMBERS, st.sampled_from([True, False, "", "a", [], {}, [""], [[5, 1]], {"5": 1}]))
PARAMETERS = sorted(ChatCompletionRequest.model_fields.keys() - {"stream", "messages"})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(st.sampled_from(["system", "developer", "user", "assistant", "tool"]), JSON),
        "content": st.one_of(st.text(max_size=20), st.lists(st.one_of(JSON, st.just({"text": "a"}))), JSON),
        "tool_calls": JSON,
    },
)
FIELDS = st.one_of(
    st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=4),
    st.dictionaries(st.text(max_size=5), JSON, max_size=1),
)
REQUESTS = st.one_of(
    st.builds(
        lambda messages, fields: ("/v1/chat/completions", {"messages": messages, "max_tokens": 2, **fields}),
        st.one_of(st.just(MESSAGES), st.lists(MESSAGE, max_size=4), JSON),
        FIELDS,
    ),
    st.builds(
        lambda prompt, fields: ("/v1/completions", {"prompt": prompt, "max_tokens": 2, **fields}),
        st.one_of(st.just([5]), st.text(), st.lists(NUMBERS, max_size=4), st.lists(st.text(), max_size=4), JSON),
        FIELDS,
    ),
)

COUNTS = st.one_of(st.integers(0, 600), st.sampled_from([10**9, 1e9, -1, 2**63 - 1, 0.5, "7"]))
PATTERNS = st.one_of(
    st.sampled_from(["(a*)*b", "(a|a)*$", "((a{50}){50}){50}", "^(?=x)", "[", "\\p{L}+", "(.*)(.*)(.*)x", ".{500}"]),
    st.text(alphabet="ab.*+?{}()[]|^$\\,0123456789", max_size=20),
)
SCHEMAS = st.recursive(
    st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["string", "array", "object", "integer", "number", "null", "wizard", 5]),
                "minLength": COUNTS,
                "maxLength": COUNTS,
                "minItems": COUNTS,
                "maxItems": COUNTS,
                "minProperties": COUNTS,
                "minimum": NUMBERS,
                "maximum": NUMBERS,
                "multipleOf": NUMBERS,
                "pattern": PATTERNS,
                "format": st.sampled_from(["date-time", "email", "nothing"]),
                "enum": st.lists(JSON, max_size=3),
                "const": JSON,
                "$ref": st.sampled_from(["#", "#/properties/a", "#/$defs/nothing", "https://example.org/x"]),
            },
        ),
        st.dictionaries(st.text(max_size=5), JSON, max_size=2),
    ),
    lambda schemas: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["array", "object"]),
            "items": schemas,
            "prefixItems": st.lists(schemas, max_size=3),
            "minItems": COUNTS,
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), schemas, max_size=2),
            "additionalProperties": schemas,
            "required": st.just(["a"]),
            "anyOf": st.lists(schemas, max_size=3),
            "oneOf": st.lists(schemas, max_size=3),
            "allOf": st.lists(schemas, max_size=3),
            "not": schemas,
            "$defs": st.dictionaries(st.just("a"), schemas),
        },
    ),
    max_leaves=6,
)
GRAMMAR_ATOMS = st.sampled_from(
    ["a", "b", "root", '"x"', '""', "[a-z]", "[^a]", ".", "[", '"', "\\", "#", "{3}", "{0,500}", "{9,}", "{99999999}"]
)
EXPRESSIONS = st.recursive(
    GRAMMAR_ATOMS,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=6).map(" ".join),
        st.lists(parts, min_size=1, max_size=4).map(" | ".join),
        st.tuples(parts, st.sampled_from(["*", "+", "?", "", "{2,7}"])).map(lambda part: f"({part[0]}){part[1]}"),
    ),
    max_leaves=30,
)
GRAMMARS = st.builds("root ::= {}\na ::= {}\nb ::= {}".format, EXPRESSIONS, EXPRESSIONS, EXPRESSIONS)
CONSTRAINTS = st.one_of(
    st.fixed_dictionaries({"json_schema": SCHEMAS}),
    st.fixed_dictionaries({"grammar": st.one_of(GRAMMARS, st.text(max_size=50))}),
)

DEEP_PATTERN = "(" * 20 + "a{9}" + "){9}" * 20
HOSTILE = [
    {"json_schema": {"type": "array", "minItems": 1e9}},
    {"json_schema": {"type": "array", "minItems": 400, "items": {"type": "string", "minLength": 400}}},
    {"json_schema": {"type": "string", "pattern": "((a{400}){400}){400}"}},
    {"json_schema": {"type": "string", "pattern": DEEP_PATTERN}},
    {"json_schema": {"type": "string", "pattern": "(.*a.{300}){300}"}},
    {"json_schema": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}},
    {"json_schema": {"allOf": [{"anyOf": [{"minLength": n}, {"maxLength": n}]} for n in range(100)]}},
    {"grammar": "root ::= " + " ".join(["a"] * 12) + "\na ::= [a-z]* [a-z]* [a-z]* [a-z]*"},
    {"grammar": "root ::= (c c c c)*\nc ::= (b b b b)*\nb ::= (a a a a)*\na ::= [a-zA-Z ]+"},
    {"grammar": "root ::= ((([a-z]{500}){500}){500}){500}"},
    {"grammar": "root ::= root root | root root root | [a-z ]"},
    {"dry_multiplier": 1, "dry_penalty_last_n": 2**31 - 1, "dry_allowed_length": 2**31 - 1},
    {"repeat_last_n": 2**31 - 1, "repeat_penalty": 1.1, "top_k": 2**31 - 1, "max_tokens": 2**31 - 1},
]

REQUEST_BYTES = (
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b'Content-Length: 48\r\n\r\n{"prompt": [5], "max_tokens": 50, "stream": true}'
)
SENT = st.one_of(
    st.integers(0, len(REQUEST_BYTES)).map(lambda end: REQUEST_BYTES[:end]),
    st.builds(
        lambda at, noise: REQUEST_BYTES[:at] + noise + REQUEST_BYTES[at + len(noise) :],
        st.integers(0, len(REQUEST_BYTES)),
        st.binary(min_size=1, max_size=20),
    ),
    st.binary(max_size=200),
    st.integers(2, 5).map(lambda count: REQUEST_BYTES * count),
)
PACES = st.sampled_from([(10_000, 0), (1, 0), (7, 0.01), (40, 0.3)])
"""Bytes in a piece, and the seconds between pieces."""
ENDINGS = st.sampled_from(["read", "leave", "reset", "half-close"])


@pytest.fixture(scope="module")
def server(exported: Run) -> Iterator[Server]:
    with (
        closing(Engine(find_gguf(exported.folder), 4, 1, LIMITS.stall_seconds)) as engine,
        running(engine, LIMITS) as server,
        _bounded_memory(),
    ):
        yield server


@pytest.fixture(autouse=True)
def _leaves_nothing(server: Server) -> Iterator[None]:
    """After each test there is no connection, no answer and no body left, and requests are answered."""
    yield
    until(lambda: not server.connections)
    until(lambda: server.app.admission.running == server.app.admission.waiting == server.app.num_held_bytes == 0)
    until(lambda: post(server, "/v1/completions", {"prompt": [5], "max_tokens": 1})[0] == 200)


@pytest.mark.parametrize("num_examples", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_whatever_is_sent_is_answered(server: Server, num_examples: int) -> None:
    """Any JSON in any field: an answer or a refusal of OpenAI's shape, and never a failure of ours."""

    @settings(max_examples=num_examples, deadline=None)
    @given(request=REQUESTS)
    def send(request: tuple[str, dict]) -> None:
        path, body = request
        status, answer = post(server, path, body)
        assert status in (200, 400)
        assert answer.keys() >= ({"choices", "usage"} if status == 200 else {"error"})

    send()


@pytest.mark.parametrize("num_examples", [30, pytest.param(1500, marks=pytest.mark.slow)])
def test_whatever_constrains_an_answer_ends(server: Server, num_examples: int) -> None:
    """A schema or a grammar is refused, followed, or given up in bounded time and memory."""

    @settings(max_examples=num_examples, deadline=None)
    @given(constraint=CONSTRAINTS)
    def send(constraint: dict) -> None:
        assert post(server, "/v1/completions", {"prompt": [5], "max_tokens": 20, **constraint})[0] in ENDED

    send()


@pytest.mark.slow
@pytest.mark.parametrize("attack", HOSTILE, ids=range(len(HOSTILE)))
def test_an_attack_ends(server: Server, attack: dict) -> None:
    body = {"prompt": [5], "max_tokens": 100, "ignore_eos": True, **attack}
    assert post(server, "/v1/completions", body)[0] in ENDED
    with ThreadPoolExecutor(12) as threads:
        statuses = list(threads.map(lambda _: post(server, "/v1/completions", body)[0], range(12)))
    assert set(statuses) <= ENDED


@pytest.mark.slow
def test_long_bodies_leave_no_memory_behind(engine: Engine) -> None:
    """The longest bodies that there may be, all at once and of every kind."""
    process = psutil.Process()
    bodies = [
        {"messages": [{"role": "user", "content": "word " * 780_000}]},
        {"messages": [{"role": "user", "content": "a"}] * 110_000},
        {"messages": MESSAGES, "metadata": [{}] * 900_000},
        {"prompt": [5] * 1_300_000},
        {"prompt": ["a"] * 700_000},
        {"messages": MESSAGES, "json_schema": {"enum": list(range(500_000))}},
    ]

    def send(body: dict) -> None:
        path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        assert post(server, path, body)[0] in {200, 400}

    before = process.memory_info().rss
    with running(engine) as server, ThreadPoolExecutor(12) as threads:
        list(threads.map(send, bodies * 4))
    gc.collect()
    assert process.memory_info().rss < before + GROWTH


@pytest.mark.parametrize("num_examples", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_cut_and_slow_connections_end(server: Server, num_examples: int) -> None:
    @settings(max_examples=num_examples, deadline=None)
    @given(clients=st.lists(st.tuples(SENT, PACES, ENDINGS), min_size=1, max_size=12))
    def connect(clients: list[tuple[bytes, tuple[int, float], str]]) -> None:
        with ThreadPoolExecutor(len(clients)) as threads:
            list(threads.map(lambda client: _connect(server, *client), clients))

    connect()


def _connect(server: Server, content: bytes, pace: tuple[int, float], ending: str) -> None:
    """Send bytes in pieces, then read to the end of the answer, leave, reset the connection or close one half of it."""
    num_bytes, seconds = pace
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection, suppress(ConnectionError):
        for start in range(0, len(content), num_bytes):
            connection.sendall(content[start : start + num_bytes])
            time.sleep(seconds)
        if ending == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ending == "half-close":
            with suppress(OSError):  # the server may have closed the whole of it
                connection.shutdown(socket.SHUT_WR)
        if ending in ("read", "half-close"):
            while connection.recv(65_536):
                pass


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Check the peak of this process and of those that it starts."""
    parent, is_over = psutil.Process(), threading.Event()
    start = parent.memory_info().rss
    peaks = {"server": start, "llama.cpp": 0}

    def watch() -> None:
        while not is_over.wait(0.02):
            peaks["server"] = max(peaks["server"], parent.memory_info().rss)
            for child in parent.children():
                with suppress(psutil.NoSuchProcess):
                    peaks["llama.cpp"] = max(peaks["llama.cpp"], child.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert peaks["server"] < start + 2 * GROWTH
    assert peaks["llama.cpp"] < CEILING
