"""Self-contained pages: the frame that they share, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from keylm.common.files import write_text
from keylm.common.units import duration, gib, percent

FOLDED_ROWS = 12
"""A table with more rows is folded."""
WIDE_COLUMNS = 5
"""A table with more columns becomes a list of its rows on a screen that is not wide."""


@dataclass(frozen=True)
class Table:
    """A table of a page. On a narrow screen every row becomes a list of its cells with their column's name."""

    columns: Sequence[str]
    """Names of the columns; the first one's cells name the rows."""
    rows: Sequence[Sequence[str]]
    title: str = ""
    """What the summary says if the table is folded."""

    @property
    def is_folded(self) -> bool:
        """Whether the table is so long that it is folded."""
        return len(self.rows) > FOLDED_ROWS

    @property
    def is_wide(self) -> bool:
        """Whether the table has more columns than a screen of middle width."""
        return len(self.columns) > WIDE_COLUMNS


def write_page(template: str, path: Path, **values: Any) -> None:
    """Render a template of this package, and write the page.

    Raises:
        OSError: The file cannot be written.
    """
    # Autoescape, because pages show what models write; strict, so that a renamed key fails instead of vanishing.
    environment = Environment(
        loader=PackageLoader("keylm.evaluate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "gib": gib}
    write_text(path, environment.get_template(template).render(values))
