"""Prompts in people's wording: the parameters of every constraint survive each voice and arrangement."""

import re

from helpers.instruction_samples import longest_literal, make_sampler
from hypothesis import given
from hypothesis import strategies as st

from keylm.instructions.constraints.base import Constraint, ConstraintContext
from keylm.instructions.constraints.catalog import TRAINED, Bullets
from keylm.instructions.constraints.start_end import RepeatRequest
from keylm.instructions.natural_requests import compose_natural_prompt
from keylm.instructions.requests import select_compatible
from keylm.instructions.wordings import spell

REQUESTS = (
    "Tell me about honey bees.",
    "What is a glacier?",
    'Could you explain what "Bromus" refers to?',
    "I need a short paragraph about DiRAC.",
    "Make this easier to read.\n\nThe Brand of Apple has been named the most Valuable.",
)

seeds = st.integers(0, 10**6)
requests = st.sampled_from(REQUESTS)
constraint_types = st.lists(st.sampled_from(TRAINED), min_size=1, max_size=5, unique=True)


def sample(request: str, types: list[type[Constraint]], seed: int) -> list[Constraint]:
    context = ConstraintContext("honey bees", request, make_sampler(f"parameters {seed}"))
    return [selected.sample(context) for selected in select_compatible(types)]


def prompt(request: str, types: list[type[Constraint]], seed: int) -> str:
    return compose_natural_prompt(request, sample(request, types, seed), make_sampler(seed))


def stands_in(parameter: object, text: str) -> bool:
    if isinstance(parameter, tuple):
        return all(stands_in(part, text) for part in parameter)
    if isinstance(parameter, str):
        return parameter in text
    assert isinstance(parameter, int)
    ordinals = ("zeroth", "first", "second", "third")
    forms = {form for number in (parameter - 1, parameter, parameter + 1) for form in (str(number), spell(number))}
    often = {1: {"once"}, 2: {"once", "twice", "one"}, 3: {"twice"}}.get(parameter, set())
    return any(form in text.lower() for form in forms | often | set(ordinals[parameter : parameter + 1]))


@given(requests, constraint_types, seeds)
def test_parameters_survive(request: str, types: list[type[Constraint]], seed: int) -> None:
    text = prompt(request, types, seed)
    for constraint in sample(request, types, seed):
        parameters = [constraint.count] if isinstance(constraint, Bullets) else vars(constraint).values()
        assert all(stands_in(parameter, text) for parameter in parameters), (constraint, text)


@given(requests, constraint_types, seeds)
def test_the_request_is_asked(request: str, types: list[type[Constraint]], seed: int) -> None:
    text = prompt(request, types, seed)
    assert request.rstrip(".?").lower() in text.lower()
    assert not re.search(r"  |[?,]\.|!\.", text)


@given(st.sampled_from(REQUESTS), constraint_types, seeds)
def test_what_is_repeated_or_worked_on_is_left_as_it_is(request: str, types: list[type[Constraint]], seed: int) -> None:
    constraints = sample(request, types, seed)
    if "\n" in request or any(isinstance(constraint, RepeatRequest) for constraint in constraints):
        assert request in prompt(request, types, seed)


@given(requests, constraint_types, seeds)
def test_prompts_depend_on_the_seed_only(request: str, types: list[type[Constraint]], seed: int) -> None:
    assert prompt(request, types, seed) == prompt(request, types, seed)


def test_held_out_phrasings_never_occur() -> None:
    prompts = "\n".join(
        prompt(REQUESTS[seed % 4], [TRAINED[(seed * step) % len(TRAINED)] for step in (1, 7, 11)], seed)
        for seed in range(3000)
    ).lower()
    assert [
        phrasing
        for constraint_type in TRAINED
        for phrasing in constraint_type.phrasings().held_out
        if longest_literal(phrasing) in prompts
    ] == []


def test_a_request_that_is_repeated_can_be_quoted_or_named() -> None:
    prompts = [prompt(REQUESTS[0], [RepeatRequest], seed) for seed in range(100)]
    assert sum(text.startswith(f'"{REQUESTS[0]}"\n\n') for text in prompts) > 5
    assert sum(bool(re.search(rf"\n[A-Za-z ]+: {re.escape(REQUESTS[0])}$", text)) for text in prompts) > 10


def test_users_differ() -> None:
    prompts = {prompt(REQUESTS[0], [TRAINED[4], TRAINED[14]], seed) for seed in range(300)}
    assert len(prompts) > 290
    assert 0.1 < sum(text == text.lower() for text in prompts) / len(prompts) < 0.35
