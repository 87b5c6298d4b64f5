"""`keylm watch --web`: the page in a real Chromium, on metrics that grow, and what it refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from helpers.browser import WIDTHS, cut_off
from helpers.made_up_run import ATTACK, HELD_OUT_SAMPLE, write_metrics
from starlette.testclient import TestClient

from keylm.commands.training_state import training_state
from keylm.commands.watch_page import make_app, page_state
from keylm.run import Run, open_run
from keylm.serve.server import open_port


@pytest.fixture
def run(prepared: Run, tmp_path: Path) -> Run:
    """A run that never trained, with metrics and a sample of a model that writes markup."""
    run = Run(tmp_path / "run", open_run(prepared.folder, ["train.tokens=921600"]).recipe)
    run.begin("pretrain")
    write_metrics(run, "pretrain")
    path = run.stage("pretrain") / "metrics.jsonl"
    rows = [{"memory_bytes": 3 << 29, **json.loads(line)} for line in path.read_text().splitlines()]
    sample = {"step": 900, "tokens": 900 * 4096, "sample": {**HELD_OUT_SAMPLE, "answer": ATTACK}}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, sample]))
    return run


def test_the_state_has_what_the_terminal_shows(run: Run) -> None:
    state = page_state(training_state(run))
    assert state["stage"] == "pretrain"
    assert state["share"] == 0.5
    assert list(state["numbers"])[:2] == ["time left", "step"]
    assert state["numbers"]["step"] == "900 of 1,800"
    assert state["numbers"]["memory"] == "1.50 GiB"
    titles = [plot["title"] for plot in state["plots"]]
    assert titles[:2] == ["loss (nats per token)", "bits per byte of held-out text"]
    assert all(len(line) <= 300 for plot in state["plots"] for line in plot["lines"].values())
    assert state["samples"][0]["answer"] == ATTACK


def test_other_sites_are_refused(run: Run) -> None:
    client = TestClient(make_app(run), base_url="http://127.0.0.1:8081")
    assert client.get("/state").status_code == 200
    # DNS rebinding, and a page of another site
    assert client.get("/state", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/state", headers={"Origin": "https://evil.example"}).status_code == 403


@contextmanager
def served(run: Run) -> Iterator[str]:
    listener = open_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(run), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_page_shows_the_run_and_cuts_nothing_off(run: Run, browser: Any) -> None:
    with served(run) as url:
        problems: list[str] = []
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(url)
            page.wait_for_selector("#plots svg")
            assert cut_off(page) == []
        assert page.inner_text("#title") == "tiny: pretrain"
        assert ATTACK in page.inner_text("#samples")
        assert page.locator("#samples script, #samples img").count() == 0
        # Another process goes on with the training.
        with (run.stage("pretrain") / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 901, "tokens": 901 * 4096, "validation": {"prose": 1.0}}) + "\n")
        page.wait_for_selector("#numbers >> text=901 of 1,800")
        page.close()
    assert problems == []
