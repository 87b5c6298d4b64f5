"""An OpenAI-compatible HTTP server on the engine, and the web page to chat on."""

from __future__ import annotations

import hmac
import ipaddress
import json
import selectors
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.gguf.locate import find_gguf
from keylm.serve import openai
from keylm.serve.admission import AdmissionQueue, Limits, OverloadedError
from keylm.serve.engine import Chunk, Engine
from keylm.serve.openai import Endpoint, RequestError

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""The page talks to this server alone."""

_PAGE = {"/": "index.html", "/chat.js": "chat.js", "/model.js": "server.js"}
_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def run_server(
    model: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    num_threads: int | None = None,
    api_key: str | None = None,
) -> None:
    """Serve a run, an export folder or a GGUF file until Ctrl-C, on `num_threads` (by default the physical cores).

    Stopped by Ctrl-C or SIGTERM, it finishes the answers that are being written; a second Ctrl-C ends them.

    Raises:
        UserError: there is no GGUF to serve, the address is taken, or it is public and there is no `api_key`.
    """
    limits = Limits()
    path = find_gguf(model)
    _require_key(host, api_key)
    with (
        closing(Engine(path, limits.answers, num_threads)) as engine,
        Server(engine, host, port, api_key, limits) as server,
    ):
        console.print(
            f"{engine.header.name} is at {server.url} until Ctrl-C: open it in a browser, or ask it", markup=False
        )
        console.print(_example(server.url), style="dim", markup=False, soft_wrap=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        with suppress(KeyboardInterrupt):
            server.finish()


def _require_key(host: str, api_key: str | None) -> None:
    """Refuse to be open to everybody: only this machine may ask without a key."""
    if not api_key and not _is_loopback(host):
        raise UserError(f"{host} is open to others: give a key with --api-key or KEYLM_API_KEY, or serve on 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(ThreadingHTTPServer):
    """The HTTP server around an engine; one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, engine: Engine, host: str, port: int, api_key: str | None = None, limits: Limits | None = None
    ) -> None:
        """Bind to `host` and `port` (0: any free port). With an `api_key`, whoever asks for text must have it.

        Raises:
            UserError: the address cannot be had.
        """
        self.engine = engine
        self.api_key = api_key
        self.limits = limits or Limits()
        self.gate = AdmissionQueue(self.limits)
        self.started = int(time.time())
        self._responses: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._places = threading.BoundedSemaphore(self.limits.connections)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}:{port} ({reason}): choose with --host and --port") from error
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"

    def finish(self) -> None:
        """Take no more connections, and wait for the answers that are being written."""
        self.server_close()
        if self.gate.running:
            console.print(f"finishing {self.gate.running} answers; Ctrl-C again ends them", style="dim")
        self.gate.close(self.limits.grace_seconds)

    def count(self, status: int) -> None:
        """Count a response, for the metrics."""
        with self._counting:
            self._responses[status] += 1

    def metrics(self) -> str:
        """llama.cpp's counters and ours, in Prometheus's text format."""
        answered = "".join(
            f'keylm:responses_total{{status="{status}"}} {count}\n' for status, count in sorted(self._responses.items())
        )
        return (
            f"{self.engine.metrics()}"
            f"# HELP keylm:responses_total HTTP responses by status.\n# TYPE keylm:responses_total counter\n{answered}"
            "# HELP keylm:answers_running Answers being written.\n# TYPE keylm:answers_running gauge\n"
            f"keylm:answers_running {self.gate.running}\n"
            "# HELP keylm:requests_waiting Requests in line.\n# TYPE keylm:requests_waiting gauge\n"
            f"keylm:requests_waiting {self.gate.waiting}\n"
        )

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or close it at once if there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """A connection, until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that vanishes is no error; of anything else the screen shows the traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection: parses requests, writes answers; `keylm.serve.openai` knows their shapes."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Set the longest silence before anything is read."""
        super().setup()
        self.connection.settimeout(self.server.limits.silence_seconds)

    def do_GET(self) -> None:
        """The page, and what there is to know of the server."""
        match self.path.partition("?")[0]:
            case path if path in _PAGE:
                self._page(_PAGE[path])
            case "/health":
                self._send_json({"status": "ok"})
            case "/v1/models":
                self._guarded(self._models)
            case "/metrics":
                self._guarded(self._metrics)
            case path:
                self.send_error(HTTPStatus.NOT_FOUND, f"there is no GET {path}")

    def do_POST(self) -> None:
        """The two ways to ask for text."""
        match self.path.partition("?")[0]:
            case "/v1/chat/completions":
                self._guarded(lambda: self._answer(openai.CHAT))
            case "/v1/completions":
                self._guarded(lambda: self._answer(openai.TEXT))
            case path:
                self.send_error(HTTPStatus.NOT_FOUND, f"there is no POST {path}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class says of broken requests, in OpenAI's shape."""
        self._refuse(RequestError(code, message or explain or HTTPStatus(code).phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the screen quiet: `/metrics` counts the requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Count the response."""
        self.server.count(int(code))

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do what only holders of the key may ask for; a refusal is sent, and a client that left is let go."""
        try:
            self._check_key()
            act()
        except RequestError as error:
            self._refuse(error)
        except OverloadedError as error:
            self._refuse(RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "overloaded"))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _check_key(self) -> None:
        key = self.server.api_key
        given = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if key and not hmac.compare_digest(given.encode(errors="replace"), key.encode()):
            self._discard_body()
            raise RequestError(HTTPStatus.UNAUTHORIZED, "this server asks for its API key", "invalid_api_key")

    def _page(self, name: str) -> None:
        content = resources.files("keylm.serve").joinpath("page", name).read_bytes()
        self._send(content, _TYPES[name.rpartition(".")[2]])

    def _models(self) -> None:
        self._send_json(openai.models(self.server.engine.header, self.server.started))

    def _metrics(self) -> None:
        self._send(self.server.metrics().encode(), "text/plain; version=0.0.4")

    def _answer(self, shape: Endpoint) -> None:
        body = openai.parse(self._body())
        request = shape.request(self.server.engine, body)
        with self.server.gate.enter():
            self._stream(request, shape) if body.get("stream") else self._whole(request, shape)

    def _whole(self, request: dict[str, Any], shape: Endpoint) -> None:
        chunks: list[Chunk] = []

        def collect(chunk: Chunk) -> None:
            chunks.append(openai.checked(chunk))
            self._check_client()

        self._complete(request, collect)
        self._send_json(shape.whole(openai.merged(chunks)))

    def _complete(self, request: dict[str, Any], on_chunk: Callable[[Chunk], None]) -> None:
        """Have an answer written, up to the longest time that one may take."""
        deadline = time.monotonic() + self.server.limits.answer_seconds

        def timely(chunk: Chunk) -> None:
            on_chunk(chunk)
            if time.monotonic() > deadline:
                seconds = self.server.limits.answer_seconds
                raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, f"the answer took over {seconds:g} s", "timeout")

        self.server.engine.complete(request, timely)

    def _check_client(self) -> None:
        """Notice a client that left while nothing is written to it.

        Raises:
            ConnectionError: it did.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            if selector.select(0) and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError

    def _stream(self, request: dict[str, Any], shape: Endpoint) -> None:
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

        try:
            self._complete(request, send)
        except RequestError as error:
            if not started:
                raise
            self._send_events([openai.error(error)])
        self._send_chunk(b"data: [DONE]\n\n")
        self._send_chunk(b"")

    def _refuse(self, error: RequestError) -> None:
        """Send an error, and close the connection: what is left of the request is not read."""
        self.close_connection = True
        self._send_json(openai.error(error), error.status)

    def _body(self) -> bytes:
        limits, length = self.server.limits, self._length()
        if length > limits.body_bytes:
            self._discard_body()
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {limits.body_bytes:,} bytes")
        return b"".join(self._pieces(length))

    def _length(self) -> int:
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError) as error:
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length") from error
        if length < 0:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the Content-Length is negative")
        return length

    def _discard_body(self) -> None:
        """Read a body without keeping it: a client that is still sending would never see the answer."""
        if self.command == "POST":
            for _ in self._pieces(self._length()):
                pass

    def _pieces(self, length: int) -> Iterator[bytes]:
        """The body as it arrives, until it is whole or takes too long."""
        deadline = time.monotonic() + self.server.limits.body_seconds
        while length > 0 and (piece := self.rfile.read1(min(length, 65_536))):
            length -= len(piece)
            yield piece
            if time.monotonic() > deadline:
                raise RequestError(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to arrive")
        if length:
            raise ConnectionResetError

    def _send_json(self, value: Any, status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
        self._start(status, kind, {"Content-Length": str(len(content))})
        self.wfile.write(content)

    def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS, **headers}.items():
            self.send_header(name, value)
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "5")
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
