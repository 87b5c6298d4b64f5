"""Phrasings: the ways to say one thing, in a training list and a held-out list, and forms that multiply them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasings:
    """Ways to say one thing, with `{slots}`. Training never uses those of `held_out`."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Wordings:
    """Ways in which people ask for one thing, in four grammatical forms, with `{slots}` and `[alternatives|of words]`.

    People write them with a register of their own: see `keylm.instructions.voices`.
    """

    clauses: tuple[str, ...]
    """Imperatives that can be joined: `leave out commas`."""
    modifiers: tuple[str, ...]
    """What can follow a request within its sentence: `without a single comma`."""
    notes: tuple[str, ...]
    """Terse remarks, for lists and parentheses: `no commas`."""
    sentences: tuple[str, ...]
    """Whole sentences, with their final mark: `Our sign printer can't print commas, so leave them out.`"""


def capitalize(text: str) -> str:
    """Capitalize the first letter and leave the others as they are (`str.capitalize` lowers them)."""
    return text[:1].upper() + text[1:]


def orders(*requests: str) -> tuple[str, ...]:
    """Each request as a plain order and in politer and stricter forms: `use no commas`, `please use no commas`..."""
    forms = ("{}", "please {}", "you must {}", "make sure to {}", "I want you to {}", "remember to {}")
    # Not `format`: the requests have slots of their own, which stay open here.
    return tuple(form.replace("{}", request) for request in requests for form in forms)


def statements(*predicates: str) -> tuple[str, ...]:
    """Each predicate as a statement about the answer: `have no commas` gives `your answer must have no commas`..."""
    strict = ("your answer must {}", "your response must {}", "the text must {}")
    forms = (*strict, "the answer should {}", "the response should {}", "the whole text should {}")
    return tuple(form.replace("{}", predicate) for predicate in predicates for form in forms)


def with_text(*requests: str) -> tuple[str, ...]:
    """Each request before or after the `{text}` that it is about.

    In half of the forms the text follows a line break or a quotation mark. Its first word then has the same tokens as
    at the start of an answer, which makes copying easier to learn.
    """
    forms: list[str] = []
    for request in requests:
        before, after = (request, request) if request.endswith("?") else (f"{request}:", f"{request}.")
        forms += [
            f"{before}\n{{text}}",
            f'{before} "{{text}}"',
            f"{before} {{text}}",
            f"{{text}}\n{capitalize(after)}",
        ]
    return tuple(forms)
