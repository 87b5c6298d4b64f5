"""One draw of chance per document, from the training split or from the held-out split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from keylm.data.instructions.words import invent_name, words

T = TypeVar("T")


@dataclass(frozen=True)
class Phrasings:
    """Ways to say one thing, with `{slots}`; what evaluation says is never said in training."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def capitalise(text: str) -> str:
    """`text` with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def orders(*requests: str) -> tuple[str, ...]:
    """Each request as a plain order and in politer or stricter forms."""
    forms = ("{}", "please {}", "you must {}", "make sure to {}", "I want you to {}", "remember to {}")
    return tuple(form.replace("{}", request) for request in requests for form in forms)


def with_text(*requests: str) -> tuple[str, ...]:
    """Each request before or after a `{text}` that it is about.

    In some of the forms the text stands after a line break or a quotation mark, where its first word has the same
    tokens as at the start of an answer; that makes copying easier to learn.
    """
    return tuple(form for request in requests for form in _forms(request))


def _forms(request: str) -> tuple[str, ...]:
    before, after = (request, request) if request.endswith("?") else (f"{request}:", f"{request}.")
    return f"{before}\n{{text}}", f'{before} "{{text}}"', f"{before} {{text}}", f"{{text}}\n{capitalise(after)}"


@dataclass(frozen=True)
class Sampler:
    """Draws words, names and phrasings of one split."""

    rng: Random
    held_out: bool

    def choice(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return self.rng.choice(options)

    def number(self, low: int, high: int) -> int:
        """A whole number between `low` and `high`, both included."""
        return self.rng.randint(low, high)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def phrase(self, phrasings: Phrasings, **slots: object) -> str:
        """One of the phrasings of the split, its slots filled."""
        return capitalise(self.choice(phrasings.held_out if self.held_out else phrasings.train)).format(**slots)

    def word(self) -> str:
        """An ordinary English word."""
        return self.choice(words("words", self.held_out))

    def words(self, count: int) -> list[str]:
        """Different ordinary words."""
        return self.rng.sample(words("words", self.held_out), count)

    def noun(self) -> str:
        """A plural noun."""
        return self.choice(words("nouns", self.held_out))

    def modifier(self) -> str:
        """A word that goes before a noun."""
        return self.choice(words("modifiers", self.held_out))

    def place(self) -> str:
        """A kind of place."""
        return self.choice(words("places", self.held_out))

    def people(self, count: int) -> list[str]:
        """Different first names, some of them invented."""
        known = self.rng.sample(words("first_names", self.held_out), count)
        return [self.name() if self.chance(0.3) else name for name in known]

    def name(self) -> str:
        """An invented name."""
        return invent_name(self.rng, self.held_out)
