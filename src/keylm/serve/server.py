"""An OpenAI-compatible HTTP server on the engine, and the web page to chat on."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from keylm.errors import UserError
from keylm.screen import console
from keylm.serve import openai
from keylm.serve.engine import Chunk, Engine, find_gguf
from keylm.serve.openai import RequestError, Shape

NUM_SLOTS = 4
"""Answers written at the same time; further requests wait until one of them ends."""
MAX_BODY_BYTES = 4_000_000
"""Longest request body: many times the longest context."""
SILENCE_SECONDS = 120
"""How long a connection may neither send nor take anything."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""The page is one file and talks to this server alone."""


def serve(model: Path, host: str = "127.0.0.1", port: int = 8080, num_threads: int | None = None) -> None:
    """Serve a run, an export folder or a GGUF file until Ctrl-C, on `num_threads` (by default the physical cores).

    Raises:
        UserError: there is no GGUF to serve, or the address is taken.
    """
    with closing(Engine(find_gguf(model), NUM_SLOTS, num_threads)) as engine, Server(engine, host, port) as server:
        console.print(
            f"{engine.header.name} is at {server.url} until Ctrl-C: open it in a browser, or ask it", markup=False
        )
        console.print(_example(server.url), style="dim", markup=False, soft_wrap=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


class Server(ThreadingHTTPServer):
    """The HTTP server around an engine; one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        """Bind to `host` and `port` (0: any free port).

        Raises:
            UserError: the address cannot be had.
        """
        self.engine = engine
        self.started = int(time.time())
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}:{port} ({reason}): choose with --host and --port") from error
        self.url = f"http://{host}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One connection: parses requests, writes answers; `keylm.serve.openai` knows their shapes."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The page, and what there is to know of the server."""
        match self.path.partition("?")[0]:
            case "/":
                page = resources.files("keylm.serve").joinpath("page.html").read_bytes()
                self._send(page, "text/html; charset=utf-8")
            case "/health":
                self._send_json({"status": "ok"})
            case "/v1/models":
                self._send_json(openai.models(self.server.engine.header, self.server.started))
            case "/metrics":
                self._send(self.server.engine.metrics().encode(), "text/plain; version=0.0.4")
            case path:
                self.send_error(HTTPStatus.NOT_FOUND, f"there is no GET {path}")

    def do_POST(self) -> None:
        """The two ways to ask for text."""
        try:
            match self.path.partition("?")[0]:
                case "/v1/chat/completions":
                    self._answer(openai.CHAT)
                case "/v1/completions":
                    self._answer(openai.TEXT)
                case path:
                    raise RequestError(HTTPStatus.NOT_FOUND, f"there is no POST {path}")
        except RequestError as error:
            self._refuse(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class says of broken requests, in OpenAI's shape."""
        self._refuse(RequestError(code, message or explain or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the screen quiet: `/metrics` counts the requests."""

    def _answer(self, shape: Shape) -> None:
        body = openai.parse(self._body())
        request = shape.request(self.server.engine, body)
        if body.get("stream"):
            self._stream(request, shape)
            return
        chunks: list[Chunk] = []

        def collect(chunk: Chunk) -> None:
            chunks.append(openai.checked(chunk))

        self.server.engine.complete(request, collect)
        self._send_json(shape.whole(openai.merged(chunks)))

    def _stream(self, request: dict[str, Any], shape: Shape) -> None:
        """Send each piece as it comes. The status waits for the first piece, so that a refusal gets its own."""
        started = False

        def send(chunk: Chunk) -> None:
            nonlocal started
            if not started:
                openai.checked(chunk)
                self._start(HTTPStatus.OK, "text/event-stream", {"Transfer-Encoding": "chunked"})
                self._send_events(shape.opening(chunk))
                started = True
            self._send_events([chunk if "error" in chunk else shape.event(chunk)])

        self.server.engine.complete(request, send)
        self._send_chunk(b"data: [DONE]\n\n")
        self._send_chunk(b"")

    def _refuse(self, error: RequestError) -> None:
        """Send an error, and close the connection: what is left of the request is not read."""
        self.close_connection = True
        self._send_json(openai.error(error.status, str(error), error.code), error.status)

    def _body(self) -> bytes:
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError) as error:
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length") from error
        if not 0 <= length <= MAX_BODY_BYTES:
            self._discard(length)
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {MAX_BODY_BYTES:,} bytes")
        return self.rfile.read(length)

    def _discard(self, length: int) -> None:
        """Read a body without keeping it: a client that is still sending would never see the answer."""
        while length > 0 and (piece := self.rfile.read(min(length, 65_536))):
            length -= len(piece)

    def _send_json(self, value: Any, status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
        self._start(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_events(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._send_chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _send_chunk(self, content: bytes) -> None:
        """One chunk of HTTP/1.1's chunked coding; an empty one ends the answer."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))


def _example(url: str) -> str:
    return (
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' "
        """-d '{"messages": [{"role": "user", "content": "What is a tide?"}]}'"""
    )
