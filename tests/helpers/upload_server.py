"""A fake Hugging Face hub on the loopback interface, with the endpoints for writing a repository."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import yaml

from helpers import loopback

TOKEN = "hf_test"


@dataclass
class Hub:
    """What was uploaded: repositories by name, whether each is private, and LFS objects by SHA-256."""

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    num_commits: int = 0


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty hub until the block ends."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with loopback.serving(Handler) as hub.address:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Keep the terminal clean."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid username or password."})
        elif self.path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path.endswith("/preupload/main"):
            self._send(200, {"files": [_mode(file) for file in json.loads(body)["files"]]})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            self._send(
                200, {"transfer": "basic", "objects": [self._upload(item) for item in json.loads(body)["objects"]]}
            )
        elif self.path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._send(404, {"error": f"no such endpoint: {self.path}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self._send(200, {})

    def _create(self, body: dict) -> None:
        name = "/".join(filter(None, [body.get("organization"), body["name"]]))
        self.hub.repositories.setdefault(name, {})
        self.hub.private[name] = body.get("visibility") == "private" or bool(body.get("private"))
        self._send(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def _validate(self, card: str) -> None:
        header = yaml.safe_load(card.split("---")[1])
        errors = [{"message": f"`{key}` is missing"} for key in ("library_name", "pipeline_tag") if key not in header]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _upload(self, item: dict) -> dict:
        return {**item, "actions": {"upload": {"href": f"{self.hub.address}/objects/{item['oid']}"}}}

    def _commit(self, lines: list[dict]) -> None:
        name = "/".join(self.path.split("/")[3:5])
        files = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.num_commits += 1
        url = f"{self.hub.address}/{name}/commit/{'0' * 40}"
        answer = {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""}
        self._send(200, answer)

    def _send(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _mode(file: dict) -> dict:
    large = file["path"].endswith((".safetensors", ".gguf"))
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}
