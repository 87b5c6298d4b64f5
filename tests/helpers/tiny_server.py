"""A server on a free port of the loopback, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from keylm.serve.admission import Limits
from keylm.serve.engine import Engine
from keylm.serve.server import Server


@contextmanager
def running(engine: Engine, limits: Limits | None = None, api_key: str | None = None) -> Iterator[Server]:
    with Server(engine, "127.0.0.1", 0, api_key, limits) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
