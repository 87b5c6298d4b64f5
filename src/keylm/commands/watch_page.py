"""`keylm watch --web`: a page that shows how a run trains, from the metrics that training writes."""

from __future__ import annotations

from contextlib import closing
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from keylm.commands.training_state import TrainingState, training_state
from keylm.common.console import console
from keylm.common.units import gib, percent
from keylm.evaluate.plots import STEP_CURVES, scores_by_source, thinned
from keylm.run import Run
from keylm.serve.access import Access
from keylm.serve.schema import RequestError
from keylm.serve.server import open_port
from keylm.train.progress import time_left

_HOST = "127.0.0.1"
# The page may load nothing and ask nobody but its own server.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def serve_watch_page(run: Run, port: int) -> None:
    """Serve the page to this machine until Ctrl-C.

    Args:
        run: The run, which another process trains.
        port: Port to listen on; 0 takes a free one.

    Raises:
        UserError: The run has not begun to train, or the port is taken.
    """
    # Before anything is served: a run that has not begun has nothing to show.
    training_state(run)
    with closing(open_port(_HOST, port)) as listener:
        console.print(f"http://{_HOST}:{listener.getsockname()[1]} shows {run.folder} until Ctrl-C", markup=False)
        config = uvicorn.Config(make_app(run), log_level="error", lifespan="off", server_header=False)
        uvicorn.Server(config).run([listener])


def make_app(run: Run) -> Starlette:
    """The application: the page, and the state that it asks for every two seconds."""
    access = Access(_HOST)
    page = files("keylm.commands").joinpath("watch.html").read_text(encoding="utf-8")

    def show_page(request: Request) -> Response:
        access.check(request.headers)
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    def show_state(request: Request) -> Response:
        access.check(request.headers)
        return JSONResponse(page_state(training_state(run)), headers={"Cache-Control": "no-store"})

    def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return Response(str(error), error.status)

    return Starlette(
        routes=[Route("/", show_page), Route("/state", show_state)], exception_handlers={RequestError: refuse}
    )


def page_state(now: TrainingState) -> dict[str, Any]:
    """What the page shows, as JSON: `title`, `stage`, `state`, `share` done, `numbers`, `plots` and `samples`."""
    numbers = {"step": f"{now.step:,} of {now.num_steps:,}"}
    if now.steps:
        numbers = {
            "time left": time_left(now.seconds_left),
            **numbers,
            "loss": f"{now.mean('loss'):.3f}",
            "tokens/s": f"{now.mean('tokens_per_second'):,.0f}",
            "memory": gib(now.steps[-1]["memory_bytes"]),
        }
        if "mfu" in now.steps[-1]:
            numbers["MFU"] = percent(now.mean("mfu"), 0)
    if skipped := now.rows_with("skipped"):
        numbers["skipped steps"] = str(skipped[-1]["skipped"])
    return {
        "title": now.title,
        "stage": now.stage,
        "state": now.state,
        "share": now.step / now.num_steps,
        "numbers": numbers,
        "plots": _plots(now),
        "samples": [{"step": row["step"], **row["sample"]} for row in reversed(now.rows_with("sample"))],
    }


def _plots(now: TrainingState) -> list[dict[str, Any]]:
    """Curves over tokens: `title`, and `lines` by name."""
    drawn: list[dict[str, Any]] = []
    for key, title in STEP_CURVES.items():
        points = [(row["tokens"], row[key]) for row in now.rows_with(key)]
        if points:
            drawn.append({"title": title, "lines": {key: thinned(points)}})
    for key, title in (("validation", "held-out text"), ("answers", "held-out answers")):
        if rows := now.rows_with(key):
            title, lines = scores_by_source(rows, key, f"bits per byte of {title}")
            drawn.append({"title": title, "lines": lines})
    # Loss and what is held out come first: speed and learning rate explain them.
    return sorted(drawn, key=lambda plot: not plot["title"].startswith(("loss", "bits")))
