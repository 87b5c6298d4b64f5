"""What a text is about: its content words, and the subject of a request."""

from __future__ import annotations

import re
from collections import Counter

STOPWORDS = frozenset(
    """a about above according after again all also am among an and answer any are as at be because been before
    being below between both but by can characterize could create define definition describe did discussion do
    does doing down during each essay explain few following for from further generate give had has have having
    he her here hers him his how i if in into introduce is it its itself just know let like list make many may
    me mean meaning means might more most much must my name need no nor not of off on once one only or other our
    out outline over overview own paragraph please portray question quick read refer refers rewrite same say
    sentence sentences she short should sketch smth so some statement sth such summarize summary teach tell text
    than that the their them then there these they this those three through to too two u under until up use used
    using very was we were what when where which while who whom why will with within without word words would
    write you your""".split()  # noqa: SIM905
)
"""Words that say little about the subject of a text."""


def content_words(text: str) -> list[str]:
    """The distinct lower-case words of four letters or more that are not stopwords, most frequent first."""
    counts = Counter(word for word in re.findall(r"\b[a-z]{4,}\b", text) if word not in STOPWORDS)
    return [word for word, _ in counts.most_common()]


def extract_subject(request: str, answer: str = "", max_words: int = 5) -> str:
    """The subject of a request: its longest run of words between stopwords and marks (RAKE, Rose et al. 2010).

    A run that the answer repeats goes before those that it does not: `volcanoes`, not `quick overview`.
    """
    runs: list[list[str]] = [[]]
    for token in re.findall(r"[\w'’-]+|[^\w\s]", request):
        if not token[0].isalnum() or token.lower() in STOPWORDS:
            runs.append([])
        else:
            runs[-1].append(token)
    candidates = [" ".join(run[:max_words]) for run in sorted(runs[:40], key=len, reverse=True) if run]
    repeated = [candidate for candidate in candidates if candidate.lower() in answer.lower()]
    return next(iter(repeated or candidates), "")
