"""A folder behind a plain static file server on a free port of the loopback, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from helpers import loopback


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder`, until the block ends."""
    with loopback.serving(partial(_Quiet, directory=str(folder))) as address:
        yield f"{address}/"
