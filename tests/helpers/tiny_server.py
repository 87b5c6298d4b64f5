"""A server on a free port of the loopback, in a thread, and what its tests ask it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from keylm.serve.access import Access
from keylm.serve.admission import Limits
from keylm.serve.engine import Engine
from keylm.serve.server import Server, open_port


@contextmanager
def running(
    engine: Engine, limits: Limits | None = None, api_key: str | None = None, access: Access | None = None
) -> Iterator[Server]:
    """Serve until the block ends."""
    listener = open_port("127.0.0.1", 0)
    server = Server(engine, listener, api_key, limits, access)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def post(server: Server, path: str, body: bytes | dict, headers: dict[str, str] | None = None) -> tuple[int, dict]:
    """Return the status and the JSON of the response to a body."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(server.url + path, content, {"Content-Type": "application/json"})
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that is to happen soon."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
