"""`keylm docs`: the documentation, also where there is no repository."""

from __future__ import annotations

import difflib

from rich.markdown import Markdown

from keylm.common.console import output
from keylm.common.errors import UserError
from keylm.shipped import package_folder


def show_page(name: str) -> None:
    """Print a page of the documentation: laid out on a terminal, as Markdown elsewhere.

    Args:
        name: The page's name, such as `recipe`.

    Raises:
        UserError: there is no such page.
    """
    pages = {path.stem: path for path in package_folder("docs").glob("*.md")}
    name = name.removesuffix(".md").removeprefix("docs/")
    if name not in pages:
        similar = difflib.get_close_matches(name, pages, 1)
        advice = f"did you mean `{similar[0]}`?" if similar else f"there are {', '.join(sorted(pages))}"
        raise UserError(f"there is no page `{name}`: {advice}")
    text = pages[name].read_text(encoding="utf-8")
    if output.is_terminal:
        with output.pager():
            output.print(Markdown(text))
    else:
        print(text, end="")
