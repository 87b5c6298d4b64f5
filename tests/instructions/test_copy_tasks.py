import re

import pytest
from helpers.instruction_samples import make_sampler

from keylm.instructions import copy_tasks
from keylm.instructions.copy_tasks import COPY_TASKS


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("copy_task", list(dict.fromkeys(COPY_TASKS)), ids=lambda copy_task: copy_task.__name__)
def test_copy_tasks_are_answered_from_the_prompt(copy_task, held_out: bool) -> None:
    for seed in range(200):
        example = copy_task(make_sampler(seed, held_out))
        prompt = " ".join(message["content"] for message in example.task.messages)
        assert example.task.followed(example.answer) == [True]
        assert example.task.followed(prompt) == [False]
        known = set(
            re.findall(r"\w+", f"{prompt} the first last word value of your name is after comes 1 2 3 4 5 6".lower())
        )
        assert set(re.findall(r"\w+", example.answer.lower())) <= known


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            copy_tasks.AnyOf("", ("The word is sea.", "sea")),
            ["the word is SEA", " Sea. "],
            ["sea sea", "the sea", "lake"],
        ),
        (copy_tasks.Verbatim("", "- sea\n- lake"), ["- sea\n- lake\n"], ["- Sea\n- lake", "- sea - lake", "- sea"]),
    ],
)
def test_checks_of_copy_tasks_allow_little(check, good: list[str], bad: list[str]) -> None:
    assert all(check.check(answer) for answer in good)
    assert not any(check.check(answer) for answer in [*bad, ""])
