"""Which hosts are served and which pages may ask, through a bare HTTP client."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import pytest
from helpers.tiny_server import running
from starlette.datastructures import Headers

from keylm.common.errors import UserError
from keylm.serve.access import Access
from keylm.serve.engine import Engine
from keylm.serve.schema import RequestError
from keylm.serve.server import Server

BODY = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(engine: Engine):
    with running(engine, access=Access("127.0.0.1", ["Chat.example.org"], ["https://friend.example"])) as server:
        yield server


def status(server: Server, method: str, path: str, headers: dict[str, str], body: str | None = None) -> int:
    return ask(server, method, path, headers, body)[0]


def ask(server: Server, method: str, path: str, headers: dict[str, str], body: str | None = None):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@pytest.mark.parametrize("path", ["/", "/chat.js", "/health", "/metrics", "/v1/models", "/nothing"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example", "192.0.2.1", ""]
)
def test_a_rebound_name_gets_nothing(server: Server, path: str, host: str) -> None:
    code, _, body = ask(server, "GET", path, {"Host": host})
    assert code == 421
    assert "--allow-host" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:80", "chat.example.org"])
def test_the_served_hosts_are_answered(server: Server, host: str) -> None:
    assert status(server, "GET", "/v1/models", {"Host": host}) == 200
    assert status(server, "POST", "/v1/chat/completions", {"Host": host, **JSON}, BODY) == 200


@pytest.mark.parametrize("lines", ["", "Host: localhost\r\nHost: evil.example\r\n"])
def test_one_host_is_named(server: Server, lines: str) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.connect()
        connection.sock.sendall(f"GET /v1/models HTTP/1.1\r\n{lines}\r\n".encode())
        assert connection.sock.recv(12) == b"HTTP/1.1 400"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "https://friend.example.evil"],
)
def test_a_page_of_another_site_is_refused(server: Server, origin: str) -> None:
    for method, path, body in (("POST", "/v1/chat/completions", BODY), ("GET", "/v1/models", None)):
        code, headers, answer = ask(server, method, path, {"Origin": origin, **JSON}, body)
        assert code == 403
        assert "--cors" in json.loads(answer)["error"]["message"]
        assert "Access-Control-Allow-Origin" not in headers
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert status(server, "OPTIONS", "/v1/chat/completions", preflight) == 403


def test_the_servers_own_page_may_ask(server: Server) -> None:
    own = f"http://127.0.0.1:{server.port}"
    assert status(server, "POST", "/v1/chat/completions", {"Origin": own, **JSON}, BODY) == 200
    proxied = {"Origin": "https://chat.example.org", "Host": "chat.example.org", **JSON}
    assert status(server, "POST", "/v1/chat/completions", proxied, BODY) == 200


def test_cors_is_for_the_sites_that_are_named(server: Server, engine: Engine) -> None:
    friend = {"Origin": "https://friend.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    code, headers, _ = ask(server, "OPTIONS", "/v1/chat/completions", {**friend, **asked})
    assert (code, headers["Access-Control-Allow-Origin"]) == (200, "https://friend.example")
    code, headers, _ = ask(server, "POST", "/v1/chat/completions", {**friend, **JSON}, BODY)
    assert (code, headers["Access-Control-Allow-Origin"]) == (200, "https://friend.example")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""]
)
def test_what_a_page_may_send_without_asking_is_refused(server: Server, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/v1/chat/completions", "/v1/completions"):
        code, _, answer = ask(server, "POST", path, headers, BODY)
        assert code == 415
        assert "application/json" in json.loads(answer)["error"]["message"]


def test_a_json_type_may_have_parameters(server: Server) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert status(server, "POST", "/v1/chat/completions", headers, BODY) == 200


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_on_every_address_any_address_is_served_but_no_name(address: str) -> None:
    access = Access(address)
    access.check(Headers({"host": "192.0.2.1:8080"}))
    access.check(Headers({"host": "[2001:db8::1]:8080"}))
    with pytest.raises(RequestError, match="not a host that is served"):
        access.check(Headers({"host": "evil.example:8080"}))


@pytest.mark.parametrize("origin", ["app://obsidian.md", "chrome-extension://abcdefghij", "http://localhost:3000"])
def test_apps_and_extensions_have_origins_too(origin: str) -> None:
    headers = Headers({"host": "127.0.0.1:8080", "origin": origin})
    Access("127.0.0.1", origins=[origin]).check(headers)
    with pytest.raises(RequestError, match="allow it with --cors"):
        Access("127.0.0.1").check(headers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hosts": ["https://example.org"]}, "not the name of a host"),
        ({"hosts": ["*"]}, "not the name of a host"),
        ({"origins": ["*"]}, "not an origin"),
        ({"origins": ["example.org"]}, "not an origin"),
        ({"origins": ["https://example.org/page"]}, "not an origin"),
    ],
)
def test_malformed_names_get_a_sentence(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Access("127.0.0.1", **arguments)
