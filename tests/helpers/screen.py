"""What commands print, at the width of a terminal, and whether it can be read there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.cells import cell_len

from keylm.common.console import output


def printed(show: Callable[[], object], width: int) -> str:
    """What `show` prints to `output` on a terminal with `width` columns."""
    with pytest.MonkeyPatch.context() as patch, output.capture() as captured:
        patch.setattr(output, "_width", width)
        show()
    return captured.get()


def assert_readable(show: Callable[[], object], width: int = 80) -> str:
    """Check that no line is wider than `width` and no word is cut or broken; return what was printed."""
    narrow = printed(show, width)
    assert max(cell_len(line) for line in narrow.splitlines()) <= width
    assert "…" not in narrow
    assert sorted(_words(narrow)) == sorted(_words(printed(show, 400)))
    return narrow


def _words(text: str) -> list[str]:
    """The words without the lines of boxes, whose length follows the width."""
    return [word for word in text.split() if not set(word) <= set("╭╮╰╯─│━╸╺")]
