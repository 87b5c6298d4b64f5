"""A small substitute for the Hugging Face hub on the loopback, with the endpoints that reading a data set needs.

It can misbehave: a `Fault` applies to the next request for a path.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from helpers import loopback

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    status: int | None = None
    """Answer with this status instead."""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Send only so many bytes, then close the connection."""
    honest: bool = True
    """Whether Content-Length says how much there should be; otherwise, how much is sent."""
    wrong: bool = False
    """Send other bytes."""
    stall: float = 0
    """Wait so many seconds before the connection is closed."""
    rate: float | None = None
    """Send so many bytes per second."""


@dataclass
class Server:
    """A running server: its address, what it sent, and the faults to come."""

    endpoint: str
    sent: dict[str, list[tuple[int, int]]]
    """For each file, where every answer began and how many bytes of it were sent."""
    faults: dict[str, list[Fault]]
    """Faults to come, in order, by a part of the path of the request."""


@contextmanager
def serve(
    repositories: dict[str, dict[str, bytes]],
    gated: frozenset[str] = frozenset(),
    faults: dict[str, list[Fault]] | None = None,
) -> Iterator[Server]:
    """Serve data sets, given as file contents by path, until the block ends."""
    state = Server("", defaultdict(list), faults or {})

    class Hub(_Handler):
        pass

    Hub.repositories, Hub.gated, Hub.state = repositories, gated, state
    with loopback.serving(Hub) as state.endpoint:
        yield state


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    gated: frozenset[str]
    state: Server

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        owner, name, action, *rest = [*parts[2 if parts[0] == "api" else 1 :], "", "", ""]
        dataset, (revision, *path) = f"{owner}/{name}", rest[:-3] or [""]
        files = self.repositories.get(dataset)
        fault = self._fault()
        if fault.status:
            self._send(fault.status, {"error": "as asked for"}, fault.headers)
        elif files is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif dataset in self.gated and action in ("auth-check", "resolve"):
            self._send(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif action == "auth-check":
            self._send(200, {})
        elif revision not in ("main", COMMIT):
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        elif action == "resolve":
            self._send_file(dataset, files, "/".join(path), fault)
        else:
            self._send_listing(action, files, "/".join(path))

    do_HEAD = do_GET  # noqa: N815

    def _fault(self) -> Fault:
        for part, faults in self.state.faults.items():
            if part in self.path and faults and self.command == "GET":
                return faults.pop(0)
        return Fault()

    def _send_file(self, dataset: str, files: dict[str, bytes], path: str, fault: Fault) -> None:
        if path not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        data = bytes(byte ^ 1 for byte in files[path]) if fault.wrong else files[path]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_sha1(files[path])}"'}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start >= len(data) > 0:
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:][: fault.cut]
        headers["Content-Length"] = str(len(data) - start if fault.honest else len(body))
        self._send(206 if start else 200, b"", headers)
        if self.command == "GET":
            self.state.sent[f"{dataset}/{path}"].append((start, 0))
            self._send_slowly(f"{dataset}/{path}", body, fault)

    def _send_slowly(self, name: str, body: bytes, fault: Fault) -> None:
        piece = max(int((fault.rate or len(body) * 50) / 50), 1)
        number = len(self.state.sent[name]) - 1
        for start in range(0, len(body), piece):
            try:
                self.wfile.write(body[start : start + piece])
            except OSError:
                return
            begin, sent = self.state.sent[name][number]
            self.state.sent[name][number] = (begin, sent + len(body[start : start + piece]))
            time.sleep(0.02 if fault.rate else 0)
        time.sleep(fault.stall)

    def _send_listing(self, action: str, files: dict[str, bytes], folder: str) -> None:
        if action == "revision":
            self._send(200, {"id": "data", "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})
        elif action == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            paths = sorted(files) if recursive else _children(folder, files)
            self._send(200, [_entry(path, files) for path in paths])
        else:
            self._send(404, {"error": f"no such endpoint: {self.path}"})

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _folders(files: dict[str, bytes]) -> set[str]:
    return {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}


def _children(folder: str, files: dict[str, bytes]) -> list[str]:
    return sorted(path for path in {*files, *_folders(files)} if str(PurePosixPath(path).parent) == (folder or "."))


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, files: dict[str, bytes]) -> dict[str, object]:
    """A file, parquet in large file storage as on the hub, or a folder."""
    if path not in files:
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
    data = files[path]
    entry: dict[str, object] = {"type": "file", "path": path, "oid": _git_sha1(data), "size": len(data)}
    if path.endswith(".parquet"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry
