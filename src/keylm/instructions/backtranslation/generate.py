"""Instruction backtranslation (Li et al. 2023, arXiv 2308.06259) by rules: conversations made from plain text.

document   "# Tea\\n\\nTea is a drink made from leaves. It is drunk all over the world."
request    "Could you tell me what tea is?"
answer     "Tea is a drink made from leaves. It is drunk all over the world."

Where the genre is `situation`, it is the other way round: the real sentences are part of the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from random import Random

from keylm.common.documents import Document
from keylm.instructions.backtranslation.dressings import dress
from keylm.instructions.backtranslation.excerpts import Excerpt, cut_excerpts
from keylm.instructions.backtranslation.prose import read_sections
from keylm.instructions.backtranslation.request_wordings import write_request
from keylm.instructions.backtranslation.situations import make_situations
from keylm.instructions.backtranslation.text_tasks import make_text_task
from keylm.instructions.task import assistant_message, user_message
from keylm.recipe.sources import BacktranslationConfig

# What news among the stories speak of.
_NEWS = re.compile(
    r"\b(?:(?:19|20)\d\d|stud(?:y|ies)|researchers?|scientists?|governments?|millions?|per ?cent|universit(?:y|ies)"
    r"|according to|spokes(?:man|woman|person)|congress|compan(?:y|ies)|presidents?|customers?|technolog(?:y|ies)"
    r"|US|UK)\b|%|[$£€]\d"
)
_MAX_NEWS = 2
"""A story has no more of these words."""


def generate_conversations(
    documents: Iterable[Document], source: BacktranslationConfig, seed: int
) -> Iterator[Document]:
    """Conversations whose answers are excerpts of plain-text documents; conversations among these are left out.

    The result is a pure function of the settings, the seed and the document.
    """
    for document in documents:
        if document.text is not None:
            yield from backtranslate(document, source, seed)


def backtranslate(document: Document, source: BacktranslationConfig, seed: int) -> Iterator[Document]:
    """The conversations made from one plain-text document, at most `source.max_per_document`."""
    text = document.text or ""
    if source.genre == "story" and len(_NEWS.findall(text)) > _MAX_NEWS:
        return
    rng = Random(f"backtranslation:{seed}:{document.digest}")
    if source.genre == "situation":
        yield from make_situations(text, rng, source.max_per_document, source.max_words_per_answer)
        return
    speaks, is_review = source.genre in ("speech", "story", "review"), source.genre == "review"
    excerpts = list(
        cut_excerpts(
            read_sections(text), rng, speaker=speaks, is_review=is_review, max_words=source.max_words_per_answer
        )
    )
    if len(excerpts) > source.max_per_document:
        kept = sorted(rng.sample(range(len(excerpts)), source.max_per_document))
        excerpts = [excerpts[index] for index in kept]
    for excerpt in excerpts:
        yield _converse(excerpt, source, rng)


def _converse(excerpt: Excerpt, source: BacktranslationConfig, rng: Random) -> Document:
    """One conversation: a form around the excerpt, a task about its text, or (mostly) a request for it."""
    draw = rng.random()
    if draw < source.text_task_fraction and (task := make_text_task(excerpt, rng)):
        return task
    if source.genre == "article" and draw > 1 - source.dressed_fraction and not excerpt.subject.aspect:
        return dress(excerpt, rng)
    request = write_request(excerpt, source.genre, rng)
    return Document(messages=(user_message(request), assistant_message(excerpt.text)))
