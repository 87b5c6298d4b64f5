"""Take the screenshot docs/chat.png: the page of `keylm serve` with a run's own answers, in a headless Chromium.

python docs/make_chat_picture.py runs/quickstart (needs `pip install playwright` and a Chromium)
"""

from __future__ import annotations

import shutil
import sys
import threading
from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from keylm.gguf.locate import find_gguf
from keylm.serve.engine import Engine
from keylm.serve.server import Server, open_port

QUESTIONS = ["Name three animals, as a list.", "Write two sentences about rivers, in lowercase."]


def main(run: Path) -> None:
    """Ask the questions, and take a screenshot of the page with the answers."""
    with closing(Engine(find_gguf(run))) as engine, sync_playwright() as program:
        listener = open_port("127.0.0.1", 0)
        server = Server(engine, listener)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        browser = program.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.goto(server.url)
        expect(page.locator("#name")).to_have_text(engine.header.name)
        for number, question in enumerate(QUESTIONS):
            page.fill("#text", question)
            page.press("#text", "Enter")
            expect(page.locator(".note")).to_have_count(number + 1, timeout=60_000)
        page.screenshot(path=Path(__file__).with_name("chat.png"))
        browser.close()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
