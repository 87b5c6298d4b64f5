"""Real exchanges with constraints added: the request asks for more, the answer is made to follow, and that is checked.

Only answers in plain prose are taken: whole sentences whose number is beyond doubt, without lists, code or marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from keylm.common.documents import Document, Message
from keylm.instructions.constraints.base import ConstraintContext, Draft, count_words, split_sentences
from keylm.instructions.constraints.catalog import TRAINED
from keylm.instructions.content_words import content_words, subject
from keylm.instructions.mistyped import maybe_mistype
from keylm.instructions.requests import ConstraintSet, apply_constraints, compose_prompt, select_compatible
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task

MOST_CONSTRAINTS = 5
MOST_WORDS = 300
"""Longer answers are left alone."""

_ATTEMPTS = 8
_MARKS = re.compile(r"[*#|<>\[\]{}`\\^=_~]|https?:|^\s*(?:[-+•]|\d+[.)])\s", re.MULTILINE)
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|vs|etc|approx|No|Nos|Fig|Eq|al|cf|Inc|Ltd|Co|Gen|Col|Capt|Mt|Rev|Gov|Sen)\."
)
_SENTENCE = re.compile(r"[\"'“‘(]?[A-Z0-9][^\n]*\w[)\"'”’]?[.!?]")


@dataclass(frozen=True)
class _Exchange:
    """The last question and answer of a conversation."""

    before: Sequence[Message]
    request: str
    sentences: tuple[str, ...]

    @property
    def subject(self) -> str:
        """What it is about, by a short request or else by how the answer begins."""
        return subject(self.request if len(self.request) < 100 else self.sentences[0])


def generate_constrained_chat(
    documents: Iterable[Document], seed: int, kinds: ConstraintSet = TRAINED
) -> Iterator[Document]:
    """Those conversations that can be made to follow one to five constraints, with the constraints in the last request.

    Some users mistype, but for the words that an answer is judged by. What becomes of a conversation is a pure function
    of the seed and of what is said in it.
    """
    for _, made in pairs(documents, seed, kinds):
        yield made


def pairs(
    documents: Iterable[Document], seed: int, kinds: ConstraintSet = TRAINED
) -> Iterator[tuple[Document, Document]]:
    """Each conversation that `generate_constrained_chat` takes, and what it makes of it."""
    for document in documents:
        example = constrain(document, seed, kinds)
        if example:
            rng = Random(f"typed:{seed}:{document.digest}")
            yield document, Document(messages=tuple(maybe_mistype(example, rng).document))


def constrain(document: Document, seed: int, kinds: ConstraintSet = TRAINED) -> Example | None:
    """The conversation with constraints; None where its last answer cannot be made to follow any and read well."""
    exchange = _last_exchange(document.messages or ())
    if exchange is None:
        return None
    sampler = Sampler(Random(f"{seed}:{document.digest}"))
    brief = ConstraintContext(exchange.subject, exchange.request, sampler, exchange.sentences)
    suited = [kind for kind in kinds if kind.suits(brief)]
    for _ in range(_ATTEMPTS):
        example = _attempt(exchange, brief, suited)
        if example:
            return example
    return None


def _attempt(exchange: _Exchange, brief: ConstraintContext, suited: ConstraintSet) -> Example | None:
    """The exchange under constraints; None where the answer does not follow all of them, or none of it is left."""
    sampler = brief.sampler
    shuffled = sampler.rng.sample(suited, len(suited))
    chosen = select_compatible(shuffled, most=sampler.number(1, MOST_CONSTRAINTS))
    constraints = tuple(kind.sample(brief) for kind in chosen)
    asks = [constraint.phrase(sampler) for constraint in sampler.rng.sample(constraints, len(constraints))]
    prompt: Message = {"role": "user", "content": compose_prompt(brief.request, asks, sampler)}
    task = Task([*exchange.before, prompt], None, constraints)
    draft = Draft(brief, list(brief.sentences))
    answer = apply_constraints(constraints, draft)
    follows = bool(constraints) and all(task.followed(answer))
    return Example(task, answer) if follows and draft.sentences else None


def _last_exchange(messages: Sequence[Message]) -> _Exchange | None:
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        return None
    request, sentences = messages[-2]["content"].strip(), prose(messages[-1]["content"])
    if not request or len(content_words(" ".join(sentences))) < 3:
        return None
    exchange = _Exchange(messages[:-2], request, sentences)
    return exchange if exchange.subject else None


def prose(answer: str) -> tuple[str, ...]:
    """The sentences of an answer in plain prose; none where there is anything else in it."""
    sentences = [each for line in answer.splitlines() for each in split_sentences(line.strip())]
    plain = not _MARKS.search(answer) and not _ABBREVIATION.search(answer) and count_words(answer) <= MOST_WORDS
    whole = all(_SENTENCE.fullmatch(each) and each.count('"') % 2 == 0 for each in sentences)
    return tuple(sentences) if plain and whole else ()
