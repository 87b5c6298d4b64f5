"""Constraints added to real conversations: the last request asks for more, and the real answer is changed to match.

    request   "How do honey bees live?"
    answer    "Honey bees live in large colonies. Workers gather nectar. Do they sleep?"
  becomes
    request   "How do honey bees live? Write exactly two bullet points. Sign as Ada."
    answer    "- Honey bees live in large colonies.\\n- Workers gather nectar. Do they sleep?\\nAda"

Only answers in plain prose are used: whole sentences, unambiguously separated, without lists, code or markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from keylm.common.documents import Document, Message
from keylm.instructions.constraints.base import ConstraintContext, Draft, count_words, split_sentences
from keylm.instructions.constraints.catalog import CHAT_CONSTRAINTS, ConstraintSet
from keylm.instructions.content_words import content_words, extract_subject
from keylm.instructions.mistyped import maybe_mistype
from keylm.instructions.natural_requests import compose_natural_prompt
from keylm.instructions.requests import apply_constraints, select_compatible
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task, user_message

NUM_CONSTRAINTS = (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 5)
"""How many constraints a request has, each number as often as it is drawn."""
MAX_WORDS = 300
"""Longer answers are left out."""

_CHECKED = frozenset({"length"})
"""Real answers are long enough for several constraints on parts and lengths, whose order decides whether all hold."""
_ATTEMPTS = 8
"""Sets of constraints to try on a conversation."""
_USUAL_SENTENCES = 6
"""How many of its sentences an answer keeps where no constraint asks for a length. With greedy decoding, a model that
has learned answers of any length rarely ends one, and a small model repeats itself in long ones."""
# Markup of the answer's own would count as bullets, highlights or titles.
_MARKUP = re.compile(r"[*#|<>\[\]{}`\\^=_~]|https?:|^\s*(?:[-+•]|\d+[.)])\s", re.MULTILINE)
# A full stop that ends no sentence would make every count of sentences wrong.
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|vs|etc|approx|No|Nos|Fig|Eq|al|cf|Inc|Ltd|Co|Gen|Col|Capt|Mt|Rev|Gov|Sen)\."
)
_SENTENCE = re.compile(r"[\"'“‘(]?[A-Z0-9][^\n]*\w[)\"'”’]?[.!?]")


@dataclass(frozen=True)
class _Exchange:
    """The last request and answer of a conversation, and the messages before them."""

    history: Sequence[Message]
    request: str
    sentences: tuple[str, ...]
    """Of the answer."""

    @property
    def subject(self) -> str:
        """The subject of the request, or of the first sentence of the answer if the request is long."""
        return extract_subject(self.request if len(self.request) < 100 else self.sentences[0], " ".join(self.sentences))


def generate_constrained_chat(
    documents: Iterable[Document], seed: int, constraint_set: ConstraintSet = CHAT_CONSTRAINTS
) -> Iterator[Document]:
    """Generate constrained versions of those conversations that can satisfy one to five constraints.

    Some users mistype, except for the words that the answer is judged by. The result is a pure function of the seed and
    the conversation.
    """
    for _, constrained in constrained_pairs(documents, seed, constraint_set):
        yield constrained


def constrained_pairs(
    documents: Iterable[Document], seed: int, constraint_set: ConstraintSet = CHAT_CONSTRAINTS
) -> Iterator[tuple[Document, Document]]:
    """Each conversation that `generate_constrained_chat` can use, and its constrained version."""
    for document in documents:
        example = constrain(document, seed, constraint_set)
        if example:
            # A generator of its own: whether the user mistypes does not change the constraints.
            rng = Random(f"typed:{seed}:{document.digest}")
            yield document, Document(messages=tuple(maybe_mistype(example, rng).document))


def constrain(document: Document, seed: int, constraint_set: ConstraintSet = CHAT_CONSTRAINTS) -> Example | None:
    """Add constraints to the last request of a conversation and apply them to its answer.

    Returns:
        The constrained conversation, or None if the answer is not plain prose or none of the sets that were tried fits.
    """
    exchange = _last_exchange(document.messages or ())
    if exchange is None:
        return None
    sampler = Sampler(Random(f"{seed}:{document.digest}"))
    full = ConstraintContext(exchange.subject, exchange.request, sampler, exchange.sentences)
    usual = replace(full, sentences=full.sentences[:_USUAL_SENTENCES])
    applicable = [constraint_type for constraint_type in constraint_set if constraint_type.is_applicable(full)]
    if not applicable:
        return None
    # A set can fail: parameters are read off the answer, which another constraint may change afterwards.
    for _ in range(_ATTEMPTS):
        shuffled = sampler.rng.sample(applicable, len(applicable))
        selected = select_compatible(shuffled, sampler.choice(NUM_CONSTRAINTS), unless=_CHECKED)
        context = full if any(constraint_type.asks_for_length for constraint_type in selected) else usual
        constraints = tuple(constraint_type.sample(context) for constraint_type in selected)
        in_random_order = sampler.rng.sample(constraints, len(constraints))
        prompt = user_message(compose_natural_prompt(context.request, in_random_order, sampler))
        draft = Draft(context, list(context.sentences), prompt["content"])
        answer = apply_constraints(constraints, draft)
        task = Task([*exchange.history, prompt], exchange.subject, constraints)
        if not task.names_topic(answer):
            task = replace(task, topic=None)
        # A draft without sentences passes if what was added around it does: nothing of the real answer is left.
        if all(task.followed(answer)) and draft.sentences:
            return Example(task, answer)
    return None


def _last_exchange(messages: Sequence[Message]) -> _Exchange | None:
    """The last exchange, if it has a subject and its answer is plain prose with three content words early on."""
    if [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
        return None
    request, sentences = messages[-2]["content"].strip(), prose_sentences(messages[-1]["content"])
    # Up to three of them are asked for, also where only the usual sentences are kept.
    if not request or len(content_words(" ".join(sentences[:_USUAL_SENTENCES]))) < 3:
        return None
    exchange = _Exchange(messages[:-2], request, sentences)
    return exchange if exchange.subject else None


def prose_sentences(answer: str) -> tuple[str, ...]:
    """The sentences of an answer; none if any of it is not plain prose."""
    sentences = [sentence for line in answer.splitlines() for sentence in split_sentences(line.strip())]
    is_plain = not _MARKUP.search(answer) and not _ABBREVIATION.search(answer) and count_words(answer) <= MAX_WORDS
    # An odd number of quotation marks: a quotation goes on in another sentence, and the two could be torn apart.
    are_whole = all(_SENTENCE.fullmatch(sentence) and sentence.count('"') % 2 == 0 for sentence in sentences)
    return tuple(sentences) if is_plain and are_whole else ()
