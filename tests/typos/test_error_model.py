from __future__ import annotations

import re
import string
from collections import Counter
from pathlib import Path
from random import Random

import nltk
import pytest
from helpers.typo_texts import PROSE
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.typos.error_model import edit_distance, mistype

EVERYDAY = st.text(st.sampled_from(string.ascii_letters + string.digits + " \n\t'.,!?-`/@éß東<|>"), max_size=300)


def levenshtein(first: str, second: str) -> int:
    return nltk.edit_distance(first, second)


@given(text=EVERYDAY)
def test_nothing_is_mistyped_at_rate_zero(text: str) -> None:
    assert mistype(text, 0.0, Random(0)) == text


@given(text=EVERYDAY, rate=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_typos_are_deterministic_and_keep_lines(text: str, rate: float, seed: int) -> None:
    typed = mistype(text, rate, Random(seed))
    assert typed == mistype(text, rate, Random(seed))
    assert typed.count("\n") == text.count("\n")
    for line, typed_line in zip(text.split("\n"), typed.split("\n"), strict=True):
        assert typed_line[: len(line) - len(line.lstrip())] == line[: len(line) - len(line.lstrip())]
        assert re.sub(r"[A-Za-z' ]", "", typed_line) == re.sub(r"[A-Za-z' ]", "", line)


@pytest.mark.parametrize("rate", [0.01, 0.02, 0.05, 0.1, 0.2])
def test_the_rate_is_met(rate: float) -> None:
    """By nltk's Levenshtein distance, over all characters of the text; one in twenty is neither letter nor space."""
    distances = [levenshtein(PROSE, mistype(PROSE, rate, Random(seed))) for seed in range(12)]
    assert sum(distances) / len(distances) / len(PROSE) == pytest.approx(rate, rel=0.15)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_rate_is_not_exceeded(seed: int) -> None:
    assert levenshtein(PROSE, mistype(PROSE, 0.1, Random(seed))) <= 0.1 * len(PROSE) + 1


@given(first=st.text("abc", max_size=8), second=st.text("abc", max_size=8))
def test_the_edit_distance_is_levenshtein_s(first: str, second: str) -> None:
    assert edit_distance(first, second) == levenshtein(first, second)


@pytest.mark.parametrize(
    "text",
    [
        "3.14 1,024 2nd x86 90% $5 12:30",
        "https://example.org/the/morning?page=two someone@example.org example.org",
        "`for line in lines` and\n```\nprint morning\n```\n    indented code here\n\tand here",
        "<|im_start|> <|im_end|> <b>bold</b> snake_case camelCase McDonald HTML --verbose f(x) and/or",
        "naïve Москва 東京 straße café",
    ],
)
def test_what_is_not_prose_is_left_alone(text: str) -> None:
    left = re.sub(r"(?<=` )and(?=\n)", "", text)
    for seed in range(50):
        assert re.sub(r"(?<=` )\w*(?=\n)", "", mistype(text, 0.5, Random(seed))) == left


def test_words_that_must_be_kept_are_kept() -> None:
    keep = {"margaret", "letter", "didn't", "definitely"}
    for seed in range(30):
        typed = mistype(PROSE, 0.3, Random(seed), keep)
        for word in ("Margaret", "didn't", "letter", "definitely"):
            assert re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", typed), (word, typed)


def test_every_error_is_made() -> None:
    counts = Counter[str]()
    for seed in range(600):
        typed = mistype("The dog didn't eat apples.", 0.05, Random(seed))
        counts[typed] += 1
    for slip in (
        "THe dog didn't eat apples.",
        "the dog didn't eat apples.",
        "The dog didnt eat apples.",
        "Thedog didn't eat apples.",
        "The dog didn't eat aples.",
        "The dog didn't eat applles.",
        "The dog didn't eat apple.",
        "The fog didn't eat apples.",
    ):
        assert counts[slip], slip
    swapped = {mistype("house", 0.4, Random(seed)) for seed in range(300)}
    assert {"huose", "hosue"} <= swapped
    assert "recieve" in {mistype("receive", 0.3, Random(seed)) for seed in range(300)}


@pytest.mark.parametrize(
    ("meant", "typed"),
    [
        ("tomorrow", "tomorow"),
        ("probably", "pobably"),
        ("should", "shpuld"),
        ("definitely", "definately"),
        ("receive", "recieve"),
        ("think", "thikn"),
        ("they're", "theyre"),
        ("Monday", "monday"),
        ("beginners", "beginers"),
        ("weather", "weatther"),
        ("receive", "receigve"),
        ("The", "THe"),
        ("The", "tHe"),
    ],
)
def test_the_errors_of_the_page_are_made(meant: str, typed: str) -> None:
    assert f"`{typed}`" in (Path(__file__).parents[2] / "docs" / "typos.md").read_text()
    assert any(mistype(meant, rate, Random(seed)) == typed for seed in range(3000) for rate in (0.12, 0.4))
