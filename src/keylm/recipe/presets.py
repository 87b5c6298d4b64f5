"""Presets: the data sets on the hub that a recipe can name, from `presets.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True)
class Preset:
    """A data set on the hub, and how its rows become documents."""

    about: str
    """One-line description."""
    gated: bool
    """Whether its terms must be accepted on its page before the first download."""
    fields: dict[str, Any]
    """Fields of `HubConfig` that it supplies."""


@cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    entries = yaml.safe_load(files("keylm.recipe").joinpath("presets.yaml").read_text(encoding="utf-8"))
    return {name: Preset(entry.pop("about"), entry.pop("gated", False), entry) for name, entry in entries.items()}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in presets():
        raise ValueError(f"there is no preset `{name}`; available: {', '.join(presets())}")
    return presets()[name]
