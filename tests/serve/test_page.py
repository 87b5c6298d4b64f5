"""The chat page in a real Chromium, against the real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_server import running
from safetensors.torch import load_file

from keylm.gguf.file import write_gguf
from keylm.run import Run
from keylm.serve.engine import Engine
from keylm.serve.server import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

EVIL = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script> **bold** `code` [x](javascript:window.hurt=1)"


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A new browser profile at the page, which may ask nobody but the server and may print no error."""
    context = browser.new_context(viewport={"width": 1100, "height": 750})
    page = context.new_page()
    page.set_default_timeout(10_000)
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(server.url)
    named(page)
    page.locator("#max_tokens").evaluate("field => { field.value = 12; field.oninput(); }")
    yield page
    context.close()
    assert problems == []
    assert all(url.startswith((server.url, "data:")) for url in asked)


def test_an_answer_appears_and_can_be_written_again(page: Any) -> None:
    say(page, "What is a tide?")
    assert "tokens" in page.inner_text(".note")
    first = page.inner_text(".assistant > :first-child")
    assert first.strip()
    page.get_by_role("button", name="Again").click()
    finished(page, answers=1)
    assert page.locator(".user").count() == 1


def test_a_suggested_request_is_asked(page: Any, exported: Run, tmp_path: Path) -> None:
    weights, path = load_file(exported.weights("sft")), tmp_path / "a.gguf"
    assert page.locator("#hello button").count() == 0
    write_gguf(exported.recipe, exported.stage("tokenizer"), weights, "F16", path, examples=["Name <b>3</b> tides."])
    with closing(Engine(path, 1, 1)) as engine, running(engine) as server:
        other = page.context.new_page()
        other.goto(server.url)
        other.get_by_role("button", name="Name <b>3</b> tides.").click()
        finished(other, answers=1)
        assert "Name <b>3</b> tides." in other.inner_text(".user")


def test_escape_stops_an_answer(page: Any) -> None:
    page.locator("#max_tokens").evaluate("field => { field.value = ''; field.oninput(); }")
    slow(page)
    page.keyboard.type("Hi")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Slowly")
    assert page.inner_text("#send") == "Stop"
    page.keyboard.press("Escape")
    finished(page, answers=1)
    assert "stopped" in page.inner_text(".note")
    assert "Slowly" in page.inner_text(".assistant")


def test_an_edited_message_replaces_what_followed(page: Any) -> None:
    say(page, "First")
    say(page, "Second")
    page.locator(".user", has_text="First").hover()
    page.locator(".user", has_text="First").get_by_role("button", name="Edit").click()
    assert page.input_value("#text") == "First"
    page.keyboard.press("End")
    page.keyboard.type(", better")
    page.keyboard.press("Enter")
    finished(page, answers=1)
    assert [text.split("\n")[-1] for text in page.locator(".user").all_inner_texts()] == ["First, better"]


def test_the_keyboard_suffices(page: Any) -> None:
    say(page, "Hello")
    page.keyboard.press("ArrowUp")
    assert page.input_value("#text") == "Hello"
    page.keyboard.press("Escape")
    assert page.input_value("#text") == ""
    page.keyboard.press("Alt+n")
    assert page.locator(".turn").count() == 0
    assert page.evaluate("document.activeElement.id") == "text"
    names = []
    while "fresh" not in names[1:]:
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    for _ in range(9):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    names = names[names.index("fresh") :]
    assert names.index("fresh") < names.index("Hello") < names.index("tune") < names.index("text") < names.index("send")


def test_conversations_are_kept_in_the_browser(page: Any) -> None:
    say(page, "About rivers")
    page.click("#fresh")
    say(page, "About stones")
    page.reload()
    named(page)
    titles = page.locator("#chats li button:first-child")
    assert titles.all_inner_texts() == ["About stones", "About rivers"]
    titles.nth(1).click()
    assert "About rivers" in page.inner_text(".user")
    assert page.inner_text(".assistant").strip()
    page.get_by_role("button", name="Delete “About rivers”").click()
    assert titles.all_inner_texts() == ["About stones"]
    assert page.locator(".turn").count() == 0


def test_two_tabs_keep_each_others_conversations(page: Any, server: Server) -> None:
    titles = "#chats li button:first-child"
    other = page.context.new_page()
    other.goto(server.url)
    named(other)
    say(page, "About rivers")
    say(other, "About stones")
    say(page, "More about rivers")
    for tab in (page, other):
        playwright.expect(tab.locator(titles)).to_have_text(["About rivers", "About stones"])
    other.locator(titles).nth(1).click()
    other.get_by_role("button", name="Delete “About stones”").click()
    playwright.expect(page.locator(titles)).to_have_text(["About rivers"])
    page.click("#fresh")
    say(page, "About winds")
    for tab in (page, other):
        tab.reload()
        named(tab)
        playwright.expect(tab.locator(titles)).to_have_text(["About winds", "About rivers"])
    other.close()


def test_a_conversation_goes_on_in_every_tab(page: Any, server: Server) -> None:
    say(page, "About rivers")
    other = page.context.new_page()
    other.goto(server.url)
    named(other)
    other.locator("#chats li button:first-child").click()
    say(page, "Of the north")
    playwright.expect(other.locator(".user")).to_have_count(2)
    say(other, "Of the south")
    playwright.expect(page.locator(".user")).to_have_count(3)
    assert page.locator("#chats li").count() == 1
    other.close()


def test_where_two_tabs_go_on_at_once_both_are_kept(page: Any, server: Server) -> None:
    say(page, "About rivers")
    other = page.context.new_page()
    other.add_init_script("addEventListener('storage', (event) => event.stopImmediatePropagation())")
    other.goto(server.url)
    named(other)
    other.locator("#chats li button:first-child").click()
    say(page, "Of the east")
    say(other, "Of the west")
    playwright.expect(page.locator("#chats li")).to_have_count(2)
    said = []
    for index in range(2):
        page.locator("#chats li button:first-child").nth(index).click()
        said.append(page.locator(".user").all_inner_texts()[-1].split("\n")[-1])
    assert sorted(said) == ["Of the east", "Of the west"]
    other.close()


def test_conversations_of_earlier_versions_are_kept(page: Any) -> None:
    old = [{"title": f"About {one}", "turns": [{"role": "user", "content": one}]} for one in ("rivers", "stones")]
    page.evaluate("old => localStorage.setItem('chats', JSON.stringify(old))", old)
    page.reload()
    named(page)
    page.locator("#chats li button:first-child").nth(1).click()
    say(page, "More")
    titles = page.locator("#chats li button:first-child")
    assert titles.all_inner_texts() == ["About stones", "About rivers"]


def test_settings_are_sent_and_kept(page: Any) -> None:
    page.click("#tune")
    page.fill("#system", "Be brief.")
    page.fill("#max_tokens", "3")
    for name, value in (("temperature", "0.35"), ("top_p", "0.5"), ("repeat_penalty", "1.25")):
        page.locator(f"#{name}").evaluate("(field, value) => { field.value = value; field.oninput(); }", value)
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Hi")
    body = json.loads(asked.value.post_data)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    tuned = {name: body[name] for name in ("temperature", "top_p", "repeat_penalty", "max_tokens")}
    assert tuned == {"temperature": 0.35, "top_p": 0.5, "repeat_penalty": 1.25, "max_tokens": 3}
    page.reload()
    named(page)
    assert page.input_value("#system") == "Be brief."
    assert page.input_value("#temperature") == "0.35"


def test_nothing_that_is_written_can_run(page: Any) -> None:
    """The words of the user and of the model stay words, whatever they are."""
    said(page, EVIL + "\n\n# Head\n\n* one\n* two\n\n```html\n<b>x</b>\n```")
    say(page, EVIL)
    assert page.evaluate("window.hurt") is None
    assert page.locator("#log img, #log script, #log a, #log b").count() == 0
    assert page.locator(".assistant strong").inner_text() == "bold"
    assert page.locator(".assistant h3").inner_text() == "Head"
    assert page.locator(".assistant li").all_inner_texts() == ["one", "two"]
    assert page.locator(".assistant pre").inner_text() == "<b>x</b>"
    assert EVIL in page.inner_text(".user")


def test_errors_are_shown_and_a_key_is_asked_for(browser: Any, engine: Engine) -> None:
    with running(engine, api_key="secret") as server:
        page = browser.new_page()
        page.set_default_timeout(10_000)
        page.goto(server.url)
        page.wait_for_selector("#key:focus")
        page.keyboard.type("secret")
        page.keyboard.press("Tab")
        named(page)
        say(page, "long " * 400)
        assert "context" in page.inner_text(".alarm")
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_by_day_and_by_night(page: Any, scheme: str) -> None:
    """Contrast of at least 4.5 to 1 (WCAG 2.1, AA) for every text that is shown."""
    page.emulate_media(color_scheme=scheme)
    page.click("#tune")
    say(page, "Hi")
    texts = page.evaluate(CONTRASTS)
    assert len(texts) > 10
    assert [text for text in texts if text["contrast"] < 4.5] == []


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_it_fits_every_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    say(page, "A word that is very long: " + "x" * 200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if page.locator("#list").is_visible():
        page.click("#list")
        assert page.locator("#chats li").count() == 1
        page.keyboard.press("Escape")
        assert not page.locator("#side").is_visible()
    assert page.locator("#send").bounding_box()["y"] < 700


def test_every_control_has_a_name(page: Any) -> None:
    page.click("#tune")
    say(page, "Hi")
    controls = page.locator("button:visible, input:visible, textarea:visible").all()
    assert len(controls) > 10
    for control in controls:
        assert control.evaluate("one => one.ariaLabel || one.textContent.trim() || one.labels[0].textContent.trim()")


CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  return [...document.querySelectorAll('body *')]
    .filter((one) => one.checkVisibility())
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((one) => {
      const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
      return { text: one.textContent.slice(0, 20), contrast: (a + 0.05) / (b + 0.05) };
    });
}"""


def say(page: Any, text: str) -> None:
    """Send a message and wait for the end of its answer."""
    answers = page.locator(".note").count()
    page.fill("#text", text)
    page.press("#text", "Enter")
    finished(page, answers + 1)


def finished(page: Any, answers: int) -> None:
    playwright.expect(page.locator(".note")).to_have_count(answers)
    playwright.expect(page.locator(".waiting")).to_have_count(0)


def named(page: Any) -> None:
    """Wait until the page knows its model."""
    playwright.expect(page.locator("#name")).to_have_text("Tiny")


def said(page: Any, text: str) -> None:
    """Let the next answer be `text`, letter by letter."""
    pieces = [{"choices": [{"delta": {"content": letter}, "finish_reason": None}]} for letter in text]
    body = "".join(f"data: {json.dumps(piece)}\n\n" for piece in pieces) + "data: [DONE]\n\n"
    page.route(re.compile("chat/completions"), lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def slow(page: Any) -> None:
    """Let the next answer begin, and never end."""
    page.evaluate(
        """() => {
          const piece = 'data: {"choices": [{"delta": {"content": "Slowly"}, "finish_reason": null}]}\\n\\n';
          window.fetch = async (_, { signal }) => new Response(new ReadableStream({
            start(control) {
              control.enqueue(new TextEncoder().encode(piece));
              signal.onabort = () => control.error(signal.reason);
            },
          }));
        }"""
    )
