"""Take the pictures of the pages: chat.png, report.png and watch.png, each at three widths, in light and in dark.

python docs/make_page_pictures.py runs/quickstart (needs `pip install playwright` and a Chromium)
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from keylm.commands.watch_page import make_app
from keylm.gguf.locate import find_gguf
from keylm.run import open_run
from keylm.serve.engine import Engine
from keylm.serve.server import Server, open_port

QUESTION = "Write two sentences about rivers, in lowercase."
WIDTHS = (390, 768, 1280)
HEIGHT, GAP = 760, 16


def main(folder: Path) -> None:
    """Take all pictures of a finished run, and write them beside this file."""
    docs = Path(__file__).parent
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with chat_page(folder) as url:
            sheet(browser, url, ask).save(docs / "chat.png", optimize=True)
        with watch_page(folder) as url:
            sheet(browser, url, wait_for_plots).save(docs / "watch.png", optimize=True)
        sheet(browser, (folder / "report.html").resolve().as_uri(), lambda _: None).save(
            docs / "report.png", optimize=True
        )
        browser.close()


def sheet(browser: Any, url: str, prepare: Any) -> Image.Image:
    """The page at all widths side by side, light above dark, at half its size."""
    total = Image.new("RGB", (sum(WIDTHS) + GAP * (len(WIDTHS) - 1), 2 * HEIGHT + GAP), "#808080")
    for row, scheme in enumerate(("light", "dark")):
        left = 0
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            page.goto(url)
            prepare(page)
            total.paste(Image.open(io.BytesIO(page.screenshot())), (left, row * (HEIGHT + GAP)))
            left += width + GAP
            page.close()
    return total.reduce(2)


def ask(page: Any) -> None:
    """Ask the chat page a question, and wait for the answer."""
    expect(page.locator("#send")).to_be_enabled()
    page.fill("#text", QUESTION)
    page.press("#text", "Enter")
    expect(page.locator(".note")).to_have_count(1, timeout=60_000)


def wait_for_plots(page: Any) -> None:
    """Wait until the live page has drawn its curves, and its bar has stopped moving."""
    page.wait_for_selector("svg")
    page.wait_for_timeout(1000)


@contextmanager
def chat_page(folder: Path) -> Iterator[str]:
    """The address of `keylm serve`, while the context lasts."""
    with closing(Engine(find_gguf(folder))) as engine, served(lambda listener: Server(engine, listener)) as url:
        yield url


@contextmanager
def watch_page(folder: Path) -> Iterator[str]:
    """The address of `keylm watch --web`, while the context lasts."""
    config = uvicorn.Config(make_app(open_run(folder)), log_level="error", lifespan="off")
    with served(lambda _: uvicorn.Server(config)) as url:
        yield url


@contextmanager
def served(make_server: Any) -> Iterator[str]:
    """Run a server in a thread."""
    with closing(open_port("127.0.0.1", 0)) as listener:
        server = make_server(listener)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
