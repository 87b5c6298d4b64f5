"""`keylm serve`: the application on uvicorn, with deadlines for clients and an orderly stop."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import re
import signal
import socket
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.gguf.locate import find_gguf
from keylm.serve.access import Access
from keylm.serve.admission import Limits
from keylm.serve.app import App
from keylm.serve.engine import Engine

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def run_server(
    model: Path | None,
    host: str = "127.0.0.1",
    port: int = 8080,
    num_threads: int | None = None,
    api_key: str | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
) -> None:
    """Serve a model until Ctrl-C or SIGTERM. Answers in progress are finished then; a second Ctrl-C cuts them off.

    Args:
        model: A run folder, an export folder, a GGUF file or the name of a shipped model; None takes the default one.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        num_threads: Threads that compute; None takes the number of physical cores.
        api_key: What clients have to send; None asks for no key.
        hosts: Names of the server besides `host` and those of the loopback, such as that of a proxy in front of it.
        origins: Origins of other sites whose pages may ask the server.

    Raises:
        UserError: There is no GGUF, the address is taken, or it is open to others and there is no `api_key`; or a host
            or an origin is malformed.
    """
    path, limits = find_gguf(model), Limits()
    if not api_key and not _is_loopback(host):
        raise UserError(f"{host} is open to others: give a key with --api-key or KEYLM_API_KEY, or serve on 127.0.0.1")
    access = Access(host, hosts, origins)
    # The port comes first: whoever has taken it is named before the model is loaded.
    with (
        closing(open_port(host, port)) as listener,
        closing(Engine(path, limits.answers, num_threads, limits.stall_seconds)) as engine,
    ):
        server = Server(engine, listener, api_key, limits, access)
        # Before anything is printed, so that a program that reads the address can stop the server at any time.
        handlers = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        console.print(
            f"{engine.header.name} is at {server.url} until Ctrl-C: open it in a browser, or ask it", markup=False
        )
        example = (
            f"curl {server.url}/v1/chat/completions -H 'Content-Type: application/json' "
            """-d '{"messages": [{"role": "user", "content": "What is a tide?"}]}'"""
        )
        console.print(example, style="dim", markup=False, soft_wrap=True)
        server.run([listener])
        for number, handler in handlers.items():
            signal.signal(number, handler)


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        UserError: The address is taken or does not exist.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # Without it a server could not be started again for a minute, while its old connections expire.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}:{port} ({reason}): choose another with --port") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(uvicorn.Server):
    """uvicorn with the application of an engine, to `run` on a listening socket, which it closes when it stops."""

    def __init__(
        self,
        engine: Engine,
        listener: socket.socket,
        api_key: str | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
    ) -> None:
        self.limits = limits or Limits()
        host, self.port = listener.getsockname()[:2]
        self.app = App(engine, self.limits, access or Access(host), api_key)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        super().__init__(
            uvicorn.Config(
                self.app,
                http=cast(type[asyncio.Protocol], partial(Connection, self.limits)),
                ws="none",
                loop="auto",  # uvloop where it is installed: it wakes up for a chunk at half the cost
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_keep_alive=math.ceil(self.limits.silence_seconds),
            )
        )

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return cast(list[Connection], list(self.server_state.connections))

    async def on_tick(self, counter: int) -> bool:
        """Drop the connections whose client is too slow; ten times a second, or as often as uvicorn calls it."""
        for connection in self.connections:
            connection.check_deadline()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: accept nothing new, and finish the answers in progress, for `grace_seconds` at most."""
        loop, admission = asyncio.get_running_loop(), self.app.admission
        for server in self.servers:
            server.close()
        if admission.running:
            console.print(f"finishing {admission.running} answers; Ctrl-C again ends them", style="dim")
        refusals = asyncio.create_task(admission.close())
        deadline = loop.time() + self.limits.grace_seconds
        while busy := [connection for connection in self.connections if connection.is_busy()]:
            if self.force_exit or loop.time() > deadline:
                break
            await asyncio.sleep(0.05)
        # To the application this looks like clients that leave. uvicorn's own forced exit would log tracebacks.
        self.force_exit = False
        for connection in busy:
            connection.transport.abort()
        await refusals
        await super().shutdown(sockets)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with the limits that uvicorn lacks.

    It has no deadline for the head of a request, for the next piece of a body, or for a client that does not read its
    answer. Here a head has `head_seconds` and each of the others `silence_seconds`, after which the connection is
    dropped. The parser is httptools rather than h11, which refuses requests without a Host header.
    """

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._num_head_bytes = 0
        self.connections: set[Connection]  # type: ignore[assignment]
        self.idle_since = self.loop.time()
        self._deadline = self.idle_since + limits.silence_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open the connection. If there are too many, drop the one that has owed a request for longest, or this one.

        Clients that open connections and ask nothing keep nobody out.
        """
        super().connection_made(transport)
        open_ones = [connection for connection in self.connections if not connection.transport.is_closing()]
        if len(open_ones) > self._limits.connections:
            idle = [connection for connection in open_ones if not connection.has_whole_request()]
            min(idle, key=lambda connection: connection.idle_since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent. A piece of a body postpones the deadline, a piece of a head does not."""
        if not self._has_request():
            # httptools drops the body of a request that offers another protocol, as Java's clients do with HTTP/2.
            # The offer is declined by hiding its header.
            head, blank_line, body = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nx-declined-upgrade:", head) + blank_line + body
        super().data_received(data)
        if self._has_request():
            self._num_head_bytes = 0
            self._deadline = self.loop.time() + self._limits.silence_seconds
            return
        if not self._num_head_bytes:
            self._deadline = self.loop.time() + self._limits.head_seconds
        self._num_head_bytes += len(data)
        if self._num_head_bytes > self._limits.head_bytes:
            self.transport.abort()

    def check_deadline(self) -> None:
        """Drop the connection if the server has waited for the client too long."""
        now = self.loop.time()
        if self.has_whole_request():
            self.idle_since = now
        # While a request waits in the queue or is answered, it is the client that waits for the server.
        if self.has_whole_request() and not self.flow.write_paused:
            self._deadline = now + self._limits.silence_seconds
        elif now > self._deadline:
            self.transport.abort()

    def has_whole_request(self) -> bool:
        """Whether a request has arrived whole, and not all of its answer has been sent."""
        return self._has_request() and not self.cycle.more_body

    def is_busy(self) -> bool:
        """Whether a client waits for an answer, or for the rest of one."""
        return self._has_request() or self.transport.get_write_buffer_size() > 0

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
