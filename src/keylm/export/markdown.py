"""Markdown for the model card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def markdown_table(*rows: Iterable[Any]) -> str:
    """Format rows of cells as a table; the first row is the header."""
    header, *body = [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *body]) + "\n"
