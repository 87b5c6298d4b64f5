"""What of a page is cut off in a real Chromium, at the widths of a phone, a tablet and a laptop."""

from __future__ import annotations

import shutil
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 768, 1280)

_CUT_OFF = """() => [...document.querySelectorAll("body *")].filter(element => {
    if (element.closest("svg") && element.tagName != "svg") return false;
    const own = element.getBoundingClientRect(), outer = element.parentElement.getBoundingClientRect();
    const sticksOut = own.right > outer.right + 1 || own.left < outer.left - 1 || own.right > innerWidth;
    return own.width && (sticksOut || element.clientWidth && element.scrollWidth > element.clientWidth + 1);
}).map(element => `${element.tagName} ${element.className}: ${element.textContent.slice(0, 80)}`)"""


def cut_off(page: Any) -> list[str]:
    """The elements that are wider than what they stand in, with everything that is folded open."""
    page.evaluate("() => document.querySelectorAll('details').forEach(part => { part.open = true; })")
    elements: list[str] = page.evaluate(_CUT_OFF)
    return elements
