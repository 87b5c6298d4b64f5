"""A server on a free port of the loopback, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
