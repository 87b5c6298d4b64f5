"""Natural wordings of constraints: one of the ways people ask for something, with its alternatives and slots filled.

template   "use [exactly|just] {count_n} bullet{s}"
rendered   "use just three bullets"

Beside the slots of its phrasings (`Constraint.slots`), a constraint's wordings can use these, for its parameters
`count` (a number), `word` (a text) and `words` (several texts):

| slot | example | |
|---|---|---|
| `{count_n}`, `{count_minus}`, `{count_plus}` | `3` or `three`, `2`, `4` | |
| `{count_often}`, `{count_minus_often}` | `three times`, `twice` | |
| `{s}`, `{minus_s}` | `s`, or nothing | the plural after the number, and after the number less one |
| `{word_q}` | `"lamp"`, `'lamp'` or `lamp` | quoted in the user's way |
| `{words_list}`, `{words_list_or}` | `lamp, sea and road` | |
| `{the_words}`, `{words_s}` | `the words`, `s` | |
| `{it}`, `{it_obj}` | `your answer` | what the constraint is about |
| `{at_least}`, `{at_most}`, `{under}`, `{over}` | `no fewer than` | before a number |
| `{at_least_times}`, `{at_most_times}` | `at least` | before `{count_often}` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.sampler import Sampler

RELATIONS: Mapping[str, Sequence[str]] = {
    "it": ("it", "the text", "the answer", "your answer", "your reply", "the whole thing", "the result"),
    "it_obj": ("it", "it", "the text", "your answer", "the answer", "the whole thing"),
    "at_least": ("at least", "at least", "no fewer than", "not fewer than", "a minimum of"),
    "at_most": ("at most", "no more than", "not more than", "a maximum of"),
    "under": ("under", "fewer than", "less than"),
    "over": ("more than", "over"),
    "at_least_times": ("at least", "at least", "no fewer than", "not less than", "a minimum of"),
    "at_most_times": ("at most", "no more than", "not more than", "a maximum of"),
}
"""Slots that every wording can use, and their values."""
QUOTES = ('"{}"', '"{}"', "'{}'", "{}")
"""Ways to quote a word."""

_ITEM = r"(?:[^\[\]|]|\[[^\[\]|]*\])*"
# Brackets without a bar are literal: `[name]` is a placeholder.
_ALTERNATIVES = re.compile(rf"\[({_ITEM}(?:\|{_ITEM})+)\]")
_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def choose_alternatives(template: str, sampler: Sampler) -> str:
    """Replace each `[a|b]` of a template by one of its alternatives."""
    return _ALTERNATIVES.sub(lambda match: sampler.choice(match[1].split("|")), template)


def all_alternatives(template: str) -> list[str]:
    """Every text that `choose_alternatives` can make of a template."""
    # With a group in the pattern, `split` returns literal text and alternatives in turn.
    pieces = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(_ALTERNATIVES.split(template))]
    return ["".join(chosen) for chosen in product(*pieces)]


def spell(number: int) -> str:
    """A number in words if people would write it so: up to twenty, tens and hundreds; in digits otherwise."""
    if number < len(_ONES):
        return _ONES[number]
    if number < 100 and number % 10 == 0:
        return _TENS[number // 10 - 1]
    if number < 1000 and number % 100 == 0:
        return f"{_ONES[number // 100]} hundred"
    return str(number)


def wording_slots(constraint: Constraint, sampler: Sampler, quote: str = '"{}"') -> dict[str, object]:
    """The values of all slots that a wording of the constraint can use (see the module's table)."""
    slots = {name: sampler.choice(values) for name, values in RELATIONS.items()} | constraint.slots
    for name, value in asdict(constraint).items():
        if isinstance(value, int):
            slots |= _number_slots(name, value, sampler)
        elif isinstance(value, str):
            slots |= {f"{name}_q": quote.format(value)}
        else:
            slots |= _list_slots(name, value, quote)
    return slots


def _number_slots(name: str, number: int, sampler: Sampler) -> dict[str, object]:
    slots: dict[str, object] = {"s": _plural_ending(number), "minus_s": _plural_ending(number - 1)}
    # Only these two go with `once` and `twice`.
    slots |= {"at_least_times": "at least"} if number < 3 else {}
    slots |= {"at_most_times": "at most"} if number < 4 else {}
    in_words = sampler.chance(0.4)
    for suffix, value in {"": number, "_minus": number - 1, "_plus": number + 1}.items():
        text = spell(value) if in_words else str(value)
        slots |= {f"{name}{suffix}": value, f"{name}{suffix}_n": text, f"{name}{suffix}_often": _often(value, text)}
    return slots


def _list_slots(name: str, texts: Sequence[str], quote: str) -> dict[str, object]:
    # Whole sentences are always quoted: nothing else shows where one ends.
    quoted = [('"{}"' if " " in text else quote).format(text) for text in texts]
    ending = _plural_ending(len(texts))
    lists = {f"{name}_list": _enumeration(quoted, "and"), f"{name}_list_or": _enumeration(quoted, "or")}
    return {**lists, f"{name}_s": ending, f"the_{name}": f"the word{ending}"}


def _enumeration(texts: Sequence[str], conjunction: str) -> str:
    *most, last = texts
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def _often(number: int, text: str) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{text} times")


def _plural_ending(number: int) -> str:
    return "" if number == 1 else "s"
