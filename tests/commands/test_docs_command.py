"""`keylm docs`: every page of the documentation by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from keylm.commands.docs import show_page
from keylm.common.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["recipe", "recipe.md", "docs/recipe.md"])
def test_a_page_is_printed_as_it_is_where_nobody_looks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_page(name)
    assert capsys.readouterr().out == (DOCS / "recipe.md").read_text()


def test_a_misspelled_page_is_guessed() -> None:
    with pytest.raises(UserError, match="there is no page `recipes`: did you mean `recipe`"):
        show_page("recipes")
    with pytest.raises(UserError, match=r"there is no page `qqqq`: there are architecture, .*, web$"):
        show_page("qqqq")
