"""Tasks about a text in the prompt, whose answer follows from it: quote, continue, summarize, list, rewrite."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from keylm.common.documents import Document
from keylm.instructions.backtranslation.excerpts import Excerpt
from keylm.instructions.backtranslation.grammar import expand, load_rules
from keylm.instructions.backtranslation.subjects import names_subject
from keylm.instructions.content_words import content_words
from keylm.instructions.phrasings import capitalize
from keylm.instructions.task import assistant_message, user_message

MAX_TEXT_WORDS = 150
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*")

Task = tuple[str, dict[str, str], str]
"""The prompt's text, the slots of the request, and the answer."""


def make_text_task(excerpt: Excerpt, rng: Random) -> Document | None:
    """A task about the text of an excerpt, with its answer; None if no task fits."""
    if excerpt.num_words > MAX_TEXT_WORDS or len(excerpt.sentences) < 2:
        return None
    for name in rng.sample(tuple(_TASKS), len(_TASKS)):
        task = _TASKS[name](excerpt, rng)
        if task:
            text, slots, answer = task
            grammar = load_rules("text_tasks")
            request = expand(rng.choice(grammar[name]), grammar["rules"], rng).format(**slots)
            return Document(messages=(user_message(_with_text(request, text, rng)), assistant_message(answer)))
    return None


def _with_text(request: str, text: str, rng: Random) -> str:
    """The request before or after its text."""
    mark = "" if request[-1] in "?;" else rng.choice((":", ".", ":"))
    request = capitalize(request) if rng.random() < 0.85 else request.lower()
    before = f"{request}{mark}"
    forms = (
        f"{before}\n{text}",
        f"{before}\n\n{text}",
        f'{before} "{text}"',
        f"{text}\n\n{request}",
        f"{text}\n{before}",
    )
    # Quotation marks inside quotation marks would be hard to read.
    return rng.choice([form for form in forms if '"' not in text or not form.endswith('"')])


def _continue(excerpt: Excerpt, rng: Random) -> Task | None:
    sentences = excerpt.sentences
    num_given = rng.randint(1, len(sentences) - 1)
    return " ".join(sentences[:num_given]), {}, " ".join(sentences[num_given:])


def _quote(excerpt: Excerpt, rng: Random) -> Task | None:
    words = [word for word in content_words(excerpt.text) if _count(word, excerpt.text) == 1]
    if not words:
        return None
    word = rng.choice(words)
    return excerpt.text, {"word": word}, next(sentence for sentence in excerpt.sentences if _count(word, sentence))


def _count(word: str, text: str) -> int:
    return len(re.findall(rf"\b{word}", text, re.IGNORECASE))


def _first(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    return excerpt.text, {}, excerpt.sentences[0]


def _last(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    return excerpt.text, {}, excerpt.sentences[-1]


def _summary(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    """The lead of an encyclopedic or textbook paragraph says what it is about."""
    lead, *rest = excerpt.paragraphs[0]
    return (" ".join([lead, *rest]), {}, lead) if len(rest) > 1 and names_subject(excerpt.subject.bare, lead) else None


def _title(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    subject = excerpt.subject
    title = f"{subject.aspect} of {subject.phrase}" if subject.aspect else subject.bare
    return (excerpt.text, {}, capitalize(title)) if subject.is_caption else None


def _names(excerpt: Excerpt, rng: Random) -> Task | None:
    names = list(dict.fromkeys(_NAME.findall(excerpt.text)))
    if not 2 <= len(names) <= 8:
        return None
    separator = rng.choice((", ", "\n", "\n- "))
    return excerpt.text, {}, separator.removeprefix("\n") * (separator == "\n- ") + separator.join(names)


def _bullets(excerpt: Excerpt, rng: Random) -> Task | None:
    mark = rng.choice(("- ", "* "))
    return excerpt.text, {}, "\n".join(f"{mark}{sentence}" for sentence in excerpt.sentences)


def _lower(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    return excerpt.text, {}, excerpt.text.lower()


def _upper(excerpt: Excerpt, rng: Random) -> Task | None:  # noqa: ARG001
    return excerpt.text, {}, excerpt.text.upper()


_TASKS: dict[str, Callable[[Excerpt, Random], Task | None]] = {
    "continue": _continue,
    "quote": _quote,
    "first": _first,
    "last": _last,
    "summary": _summary,
    "title": _title,
    "names": _names,
    "bullets": _bullets,
    "lower": _lower,
    "upper": _upper,
}
