"""The random source of one document: draws words, names and phrasings of the training or the held-out split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from keylm.instructions.phrasings import Phrasings, capitalize
from keylm.instructions.word_lists import invent_name, word_list

T = TypeVar("T")


@dataclass(frozen=True)
class Sampler:
    """Draws numbers, words, names and phrasings from one random generator."""

    rng: Random
    new_words: bool = False
    """Whether words and names are those that training never uses."""
    new_phrasings: bool = False
    """Whether phrasings are those that training never uses."""

    def choice(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return self.rng.choice(options)

    def number(self, low: int, high: int) -> int:
        """An integer between `low` and `high`, both included."""
        return self.rng.randint(low, high)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def render(self, phrasings: Phrasings, **slots: object) -> str:
        """One of the phrasings with its slots filled and a capital first letter."""
        return capitalize(self.phrasing(phrasings)).format(**slots)

    def phrasing(self, phrasings: Phrasings) -> str:
        """One of the phrasings, with its slots unfilled."""
        return self.choice(phrasings.held_out if self.new_phrasings else phrasings.train)

    def word(self) -> str:
        """An ordinary English word."""
        return self.choice(word_list("words", self.new_words))

    def words(self, count: int) -> list[str]:
        """Different ordinary words."""
        return self.rng.sample(word_list("words", self.new_words), count)

    def words_with(self, letter: str, count: int) -> tuple[str, ...]:
        """Different ordinary words that contain a letter: `count` of them, or all there are."""
        matching = [word for word in word_list("words", self.new_words) if letter in word]
        return tuple(self.rng.sample(matching, min(count, len(matching))))

    def word_without(self, letter: str) -> str:
        """An ordinary word that does not contain a letter."""
        return self.choice([word for word in word_list("words", self.new_words) if letter not in word])

    def noun(self) -> str:
        """A plural noun."""
        return self.choice(word_list("nouns", self.new_words))

    def modifier(self) -> str:
        """A word that can precede a noun."""
        return self.choice(word_list("modifiers", self.new_words))

    def place(self) -> str:
        """A type of place, such as `bridge`."""
        return self.choice(word_list("places", self.new_words))

    def people(self, count: int) -> list[str]:
        """Different first names, a third of them replaced by invented names."""
        first_names = self.rng.sample(word_list("first_names", self.new_words), count)
        return [self.name() if self.chance(0.3) else name for name in first_names]

    def name(self) -> str:
        """An invented name, such as `Varnel`."""
        return invent_name(self.rng, self.new_words)
