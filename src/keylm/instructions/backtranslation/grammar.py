"""Wordings by composition: a YAML file of rules, each a list of alternatives with `<rule>` and `{slot}` in them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

import yaml

_RULE = re.compile(r"<(\w+)>")
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def load_rules(name: str) -> dict[str, Any]:
    """The rules of the file `name`.yaml beside this module."""
    text = (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    rules: dict[str, Any] = yaml.load(text, _YAML_LOADER)
    return rules


def expand(pattern: str, rules: dict[str, list[str]], rng: Random) -> str:
    """Replace each `<rule>` of a pattern by one of its alternatives, again and again. Slots stay open."""
    while _RULE.search(pattern):
        pattern = _RULE.sub(lambda rule: rng.choice(rules[rule[1]]), pattern)
    return " ".join(pattern.split(" ")).replace("  ", " ").strip()


def num_wordings(pattern: str, rules: dict[str, list[str]]) -> int:
    """In how many ways a pattern can be expanded."""
    product = 1
    for rule in _RULE.findall(pattern):
        product *= sum(num_wordings(alternative, rules) for alternative in rules[rule])
    return product
