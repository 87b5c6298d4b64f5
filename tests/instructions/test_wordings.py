"""Natural wordings: complete, distinct, free of held-out phrasings, and true to their parameters."""

import re
from itertools import product
from string import Formatter

import pytest
from helpers.instruction_samples import longest_literal, make_sampler

from keylm.instructions.constraints.base import Constraint, ConstraintContext
from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, HELD_OUT, TRAINED, Bullets
from keylm.instructions.wordings import all_alternatives, choose_alternatives, spell, wording_slots

FORMS = ("clauses", "modifiers", "notes", "sentences")

every_trained = pytest.mark.parametrize("constraint_type", TRAINED, ids=lambda constraint_type: constraint_type.name)


def templates(constraint_type: type[Constraint]) -> list[str]:
    """Every template of a constraint, with each of its alternatives."""
    wordings = constraint_type.wordings()
    return [text for form in FORMS for template in getattr(wordings, form) for text in all_alternatives(template)]


def sampled(constraint_type: type[Constraint], seed: int) -> Constraint:
    return constraint_type.sample(ConstraintContext("honey bees", "Tell me about honey bees.", make_sampler(seed)))


@every_trained
def test_there_are_many_in_each_form(constraint_type: type[Constraint]) -> None:
    texts = templates(constraint_type)
    assert len(set(texts)) >= (40 if constraint_type in BASIC_CONSTRAINTS else 20)
    assert all(len(getattr(constraint_type.wordings(), form)) >= 2 for form in FORMS)


@every_trained
def test_all_slots_are_filled(constraint_type: type[Constraint]) -> None:
    for seed in range(3):
        slots = wording_slots(sampled(constraint_type, seed), make_sampler(seed))
        for template in templates(constraint_type):
            assert not re.search(r"\[[^\[\]]*\||\{\w+\}", template.format(**slots)), template


@every_trained
def test_parameters_stand_in_every_wording(constraint_type: type[Constraint]) -> None:
    """A wording leaves out no parameter: without it, the user would ask for something else."""
    # The whole request stands there anyway, and either mark of a bullet will do.
    parameters = set(vars(sampled(constraint_type, 0))) - {"request", "mark" if constraint_type is Bullets else ""}
    for template in templates(constraint_type):
        slots = {name for _, name, _, _ in Formatter().parse(template) if name}
        numbers = {"count"} if slots & {"number", "digits"} else set()
        orders = {"position"} if "order" in slots else set()
        labels = {"label", "count"} if "labels" in slots else set()
        named = {name for name in parameters if any(slot == name or slot.startswith(f"{name}_") for slot in slots)}
        assert named | numbers | orders | labels >= parameters, template


@every_trained
def test_each_form_has_its_grammar(constraint_type: type[Constraint]) -> None:
    wordings = constraint_type.wordings()
    for form in ("clauses", "modifiers"):
        for template in getattr(wordings, form):
            assert not re.match("[A-Z]", template), template
            assert not template.endswith("."), template
    for template in wordings.sentences:
        assert re.match(r"\[?(?:[A-Z]|\{)", template), template


def test_no_wording_asks_for_two_constraints() -> None:
    owners: dict[str, str] = {}
    for constraint_type in TRAINED:
        # What is counted is no parameter: `write two sentences`, `write two bullet points`.
        unit = str(wording_slots(sampled(constraint_type, 0), make_sampler(0)).get("number", "")).partition(" ")[2]
        for text in templates(constraint_type):
            anonymous = re.sub(r"\{(count|times|limit)", "{n", re.sub(r"\{(number|digits)\}", unit, text))
            assert owners.setdefault(anonymous, constraint_type.name) == constraint_type.name, text


def test_held_out_phrasings_never_occur() -> None:
    texts = "\n".join(text for constraint_type in TRAINED for text in templates(constraint_type)).lower()
    assert [
        phrasing
        for constraint_type in TRAINED
        for phrasing in constraint_type.phrasings().held_out
        if longest_literal(phrasing) in texts
    ] == []


@pytest.mark.parametrize("constraint_type", HELD_OUT, ids=lambda constraint_type: constraint_type.name)
def test_held_out_constraints_have_none(constraint_type: type[Constraint]) -> None:
    with pytest.raises(KeyError):
        constraint_type.wordings()


def test_alternatives_leave_literal_brackets_alone() -> None:
    template = "[use|leave] a [name] in [[brackets]|square ones]"
    expected = {f"{verb} a [name] in {kind}" for verb, kind in product(("use", "leave"), ("[brackets]", "square ones"))}
    assert set(all_alternatives(template)) == expected
    assert {choose_alternatives(template, make_sampler(seed)) for seed in range(60)} == expected


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (13, "thirteen"), (60, "sixty"), (61, "61"), (300, "three hundred"), (1200, "1200")],
)
def test_numbers_are_spelled_as_people_do(number: int, words: str) -> None:
    assert spell(number) == words
