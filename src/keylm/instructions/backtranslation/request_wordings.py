"""Writing the request for an excerpt: a kind of request that its subject allows, in one of many wordings and voices."""

from __future__ import annotations

import re
from random import Random

from keylm.instructions.backtranslation.excerpts import Excerpt
from keylm.instructions.backtranslation.grammar import expand, load_rules
from keylm.instructions.phrasings import capitalize

_IS = re.compile(r"(?:The |An? )?[\w' -]{3,60}? (is|are|was|were) (?:an? |the |one |any |any of)")
SHORT, LONG = 60, 180
"""Below and above these numbers of words, a request may ask for a short or a detailed answer."""


def write_request(excerpt: Excerpt, genre: str, rng: Random) -> str:
    """A request that the excerpt answers."""
    grammar = load_rules("requests")
    kind = _sample_kind(excerpt, genre, rng)
    num_words = excerpt.num_words
    how_long = ["<brief>"] if num_words < SHORT else ["<long>"] if num_words > LONG else [""]
    # One form of the verb: subjects in the plural are asked for with "are".
    verb = ["are" if _is_plural(excerpt) else "is"]
    rules = {**grammar["rules"], "how_long": how_long, "be": verb}
    subject = excerpt.subject
    slots = {"full": subject.full, "phrase": subject.phrase, "bare": subject.bare, "title": excerpt.title}
    return in_a_voice(expand(rng.choice(grammar[kind]), rules, rng).format(**slots), rng)


def in_a_voice(request: str, rng: Random) -> str:
    """The request as a careful writer types it (mostly), or without a final mark, or without capitals as well."""
    draw = rng.random()
    if draw < 0.1:
        return request.rstrip(".")
    if draw < 0.2:
        return request.rstrip(".").lower()
    return capitalize(request)


def _sample_kind(excerpt: Excerpt, genre: str, rng: Random) -> str:
    """The kind of request: a section of `requests.yaml`."""
    subject, first = excerpt.subject, excerpt.sentences[0]
    if genre == "story":
        if excerpt.is_beginning and excerpt.title and rng.random() < 0.3:
            return "titled_story"
        return rng.choice(("story", "beginning") if excerpt.is_beginning else ("scene", "scene", "story"))
    if genre != "article":
        return genre
    if subject.is_person and not subject.aspect and excerpt.is_beginning and rng.random() < 0.6:
        return "who"
    is_defined = _IS.match(first) and subject.bare.lower() in first[: len(subject.bare) + 8].lower()
    # Names of several words may be people, of whom one does not ask what they are.
    is_thing = not subject.is_person and not (subject.bare.istitle() and " " in subject.bare)
    if not is_defined or not is_thing or subject.aspect or rng.random() < 0.4:
        return "about"
    return "what_is" if subject.bare[0].isupper() or rng.random() < 0.5 else "definition"


def _is_plural(excerpt: Excerpt) -> bool:
    """Whether the excerpt says `are` or `were` of its subject."""
    defined = _IS.match(excerpt.sentences[0])
    return defined is not None and defined[1] in ("are", "were")
