"""One draw of chance per document: words and phrasings from the training split or from the held-out split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from keylm.instructions.words import invent_name, words

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


def statements(*predicates: str) -> tuple[str, ...]:
    """What is said of the answer, by several names for it."""
    strict = ("your answer must {}", "your response must {}", "the text must {}")
    forms = (*strict, "the answer should {}", "the response should {}", "the whole text should {}")
    return tuple(form.replace("{}", predicate) for predicate in predicates for form in forms)


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
    """Draws words, names and phrasings, each of its split."""

    rng: Random
    new_words: bool = False
    """Whether words and names are those that training never uses."""
    new_phrasings: bool = False
    """Whether requests are phrased as training never does."""

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
        return capitalise(self.one_of(phrasings)).format(**slots)

    def one_of(self, phrasings: Phrasings) -> str:
        """One of the phrasings of the split, with its slots."""
        return self.choice(phrasings.held_out if self.new_phrasings else phrasings.train)

    def word(self) -> str:
        """An ordinary English word."""
        return self.choice(words("words", self.new_words))

    def words(self, count: int) -> list[str]:
        """Different ordinary words."""
        return self.rng.sample(words("words", self.new_words), count)

    def words_with(self, letter: str, count: int) -> tuple[str, ...]:
        """Different ordinary words that hold a letter: as many as asked for, or all there are."""
        found = [word for word in words("words", self.new_words) if letter in word]
        return tuple(self.rng.sample(found, min(count, len(found))))

    def word_without(self, letter: str) -> str:
        """An ordinary word that does not hold a letter."""
        return self.choice([word for word in words("words", self.new_words) if letter not in word])

    def noun(self) -> str:
        """A plural noun."""
        return self.choice(words("nouns", self.new_words))

    def modifier(self) -> str:
        """A word that goes before a noun."""
        return self.choice(words("modifiers", self.new_words))

    def place(self) -> str:
        """A kind of place."""
        return self.choice(words("places", self.new_words))

    def people(self, count: int) -> list[str]:
        """Different first names, some of them invented."""
        known = self.rng.sample(words("first_names", self.new_words), count)
        return [self.name() if self.chance(0.3) else name for name in known]

    def name(self) -> str:
        """An invented name."""
        return invent_name(self.rng, self.new_words)
