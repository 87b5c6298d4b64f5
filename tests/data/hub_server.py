"""A small stand-in for the Hugging Face hub on the loopback: the endpoints that reading a data set needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(repositories: dict[str, dict[str, bytes]], gated: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve data sets, given as file contents by path, until the block ends; yields the endpoint's address."""

    class Hub(_Handler):
        pass

    Hub.repositories, Hub.gated = repositories, gated
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    gated: frozenset[str]

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        owner, name, action, *rest = [*parts[2 if parts[0] == "api" else 1 :], "", "", ""]
        dataset, (revision, *path) = f"{owner}/{name}", rest[:-3] or [""]
        files = self.repositories.get(dataset)
        if files is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif dataset in self.gated and action in ("auth-check", "resolve"):
            self._send(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif action == "auth-check":
            self._send(200, {})
        elif revision not in ("main", COMMIT):
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        elif action == "resolve":
            self._send_file(files, "/".join(path))
        else:
            self._send_listing(action, files, "/".join(path))

    do_HEAD = do_GET  # noqa: N815

    def _send_file(self, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        etag = hashlib.sha1(files[path]).hexdigest()
        self._send(200, files[path], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def _send_listing(self, action: str, files: dict[str, bytes], folder: str) -> None:
        if action == "revision":
            self._send(200, {"id": "data", "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})
        elif action == "tree":
            self._send(200, [_entry(path, files) for path in _children(folder, files)])
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


def _entry(path: str, files: dict[str, bytes]) -> dict[str, object]:
    oid = hashlib.sha1(path.encode()).hexdigest()
    if path in files:
        return {"type": "file", "path": path, "oid": oid, "size": len(files[path])}
    return {"type": "directory", "path": path, "oid": oid, "size": 0}
