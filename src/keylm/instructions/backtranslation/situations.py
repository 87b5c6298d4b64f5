"""Requests with a situation: what a user tells before asking, in real sentences, and a short text made of templates.

situation   "The old ferry stopped last week, and the river is high."
request     "The old ferry stopped last week, and the river is high. Please write a notice about the old ferry."
answer      "Attention, everybody! We are sorry about the old ferry. Ask the mayor about the old ferry. Thank you for
            reading."

A situation that ends in a question is a request by itself half of the time.

People embed what they want in sentences that no rule can write. Real ones teach a model to find it there; the answers
are simple, so that a small model can write them and stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from random import Random

from keylm.common.documents import Document
from keylm.instructions.backtranslation.grammar import expand, load_rules
from keylm.instructions.backtranslation.prose import Passage, read_sections
from keylm.instructions.backtranslation.request_wordings import in_a_voice
from keylm.instructions.backtranslation.subjects import may_be_subject
from keylm.instructions.phrasings import capitalize
from keylm.instructions.task import assistant_message, user_message

MAX_WORDS = 40
"""Length of the longest situations."""
NUM_SENTENCES = (0, 0, 1, 1, 1, 2, 2, 3, 4, 6, 8, 11, 16, 24, 32)
"""How many of the group's sentences an answer has besides two that name the topic, each number as often as it is
drawn: about 10 to 250 words."""
ANSWERING = ("explanation", "advice", "opinion")
"""The groups whose texts can answer a question. Their sentences also go on with any text that has to be long."""

_NOUN_PHRASE = re.compile(
    r"\b(?P<article>(?i:the|an?|my|our|your|his|her|their|this|that|some|these|those)) "
    r"(?P<words>[a-z][a-z'-]{2,}(?: [a-z][a-z'-]{2,}){0,2}?)"
    r"(?=[,.;!?]| (?:of|in|on|at|to|for|with|from|and|or|but|that|which|who|is|was|are|were|has|have|had|will|would"
    r"|can|could|may|might|came|went|said|did|does|do|by|as|into|over|under|when|while|because)\b)"
)


def make_situations(text: str, rng: Random, max_situations: int, max_words: int) -> Iterator[Document]:
    """Conversations about situations of a text, in its order: at most `max_situations`, drawn from all that it has.

    Answers have at most `max_words` words, or three sentences if those are longer.
    """
    situations = [
        situation
        for section in read_sections(text)
        for passage in section.passages
        for situation in _cut_situations(passage, rng)
    ]
    kept = sorted(rng.sample(range(len(situations)), min(max_situations, len(situations))))
    for situation in (situations[index] for index in kept):
        yield _converse(situation, rng, max_words)


def find_noun_phrases(text: str) -> list[str]:
    """The distinct noun phrases of a text that could be a topic, with an article that says so: `the old ferry`."""
    phrases: dict[str, None] = {}
    for use in _NOUN_PHRASE.finditer(text):
        if may_be_subject(use["words"]):
            article = use["article"].lower()
            is_own = article in ("my", "our", "your", "this", "these", "those")
            phrases[f"{article if is_own else 'the'} {use['words']}"] = None
    return list(phrases)


def _cut_situations(passage: Passage, rng: Random) -> Iterator[str]:
    """One or two sentences in a row with a noun phrase; no sentence is used twice."""
    sentences = [sentence for paragraph in passage for sentence in paragraph]
    while sentences:
        count = rng.choice((1, 1, 2))
        situation, sentences = " ".join(sentences[:count]), sentences[count:]
        if len(situation.split()) <= MAX_WORDS and find_noun_phrases(situation):
            yield situation


def _converse(situation: str, rng: Random, max_words: int) -> Document:
    """A request for a text in one of the forms, or a question of the situation's own, and such a text."""
    grammar = load_rules("situations")
    is_asked = situation.endswith("?") and rng.random() < 0.5
    groups = ANSWERING if is_asked else [name for name in grammar if name not in ("requests", "rules")]
    group = grammar[rng.choice(groups)]
    topic, *others = rng.sample(phrases := find_noun_phrases(situation), len(phrases))
    form, is_plural = rng.choice(group["forms"]), topic.endswith("s") and not topic.endswith("ss")
    slots = {
        "topic": topic,
        "topic_bare": topic.partition(" ")[2],
        "other": (others or ["everything else"])[0],
        "is": "are" if is_plural else "is",
        "Is": "Are" if is_plural else "Is",
        "was": "were" if is_plural else "was",
        "situation": situation,
    }
    rules = {**grammar["rules"], "form": [form], "Form": [capitalize(form)]}
    # Half of the requests are of the group's own if it has any: questions, which name no form.
    wordings = group["requests"] if "requests" in group and rng.random() < 0.5 else grammar["requests"]
    wording = "{situation}" if is_asked else rng.choice(wordings)
    # People ask for a story about a ferry that they have not spoken of before.
    asked = {**slots, "topic": _make_indefinite(topic, is_plural)} if rng.random() < 0.5 else slots
    request = in_a_voice(expand(wording, rules, rng).format(**asked), rng)
    sentences = _answer(group, grammar, rules, slots, rng)
    while len(sentences) > 3 and sum(len(sentence.split()) for sentence in sentences) > max_words:
        # The closing stays.
        sentences.pop(-2)
    return Document(messages=(user_message(request), assistant_message(" ".join(sentences))))


def _make_indefinite(topic: str, is_plural: bool) -> str:
    """`a ferry` for `the ferry`, `ferries` for `the ferries`; topics with another article stay."""
    article, _, words = topic.partition(" ")
    if article != "the":
        return topic
    return words if is_plural else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _answer(
    group: dict[str, list[str]],
    grammar: dict[str, dict[str, list[str]]],
    rules: dict[str, list[str]],
    slots: dict[str, str],
    rng: Random,
) -> list[str]:
    """An opening, sentences in the order of the group and a closing; two or more name the topic."""
    pool, num_sentences = group["sentences"], rng.choice(NUM_SENTENCES)
    naming = [index for index, template in enumerate(pool) if "{topic}" in template]
    if num_sentences > len(pool):
        others = (grammar[name]["sentences"] for name in ANSWERING if grammar[name] is not group)
        pool = [*pool, *chain.from_iterable(others)]
    chosen = {*rng.sample(naming, 2), *rng.sample(range(len(pool)), num_sentences)}
    body = (pool[index] for index in sorted(chosen))
    templates = (rng.choice(group["openings"]), *body, rng.choice(group["closings"]))
    sentences = (expand(template, rules, rng).format(**slots) for template in templates)
    return [capitalize(sentence) for sentence in sentences if sentence]
