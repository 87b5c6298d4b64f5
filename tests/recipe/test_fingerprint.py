"""What a stage depends on: which changes of a recipe concern which stages."""

from __future__ import annotations

from typing import Any

import pytest

from keylm.recipe import Recipe
from keylm.recipe.fingerprint import changed_fields, name_fields, source_inputs, stage_inputs
from keylm.stages import STAGES

ALL = [stage.name for stage in STAGES]
TRAINED = ["pretrain", "sft", "dpo", "grpo", "eval", "export"]


def recipe(**changes: Any) -> Recipe:
    """A recipe of two files and generated text; `changes` replaces values, `__` standing for a dot."""
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {
            "clean": {},
            "sources": [
                {"name": "prose", "type": "files", "path": "a.txt"},
                {"name": "typos", "type": "typos", "from_sources": ["prose"]},
            ],
        },
        "sft": {"sources": [{"name": "talk", "type": "files", "path": "b.jsonl"}]},
        "prepare": {},
        "train": {},
        "eval": {},
        "export": {},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        section: Any = values
        for parent in parents:
            section = section[int(parent) if parent.isdigit() else parent]
        section[last] = value
    return Recipe.model_validate(values)


def concerned(**changes: Any) -> list[str]:
    before, after = stage_inputs(recipe()), stage_inputs(recipe(**changes))
    return [stage for stage in before if changed_fields(before[stage], after[stage])]


def test_every_stage_has_an_entry() -> None:
    assert list(stage_inputs(recipe())) == ALL


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"seed": 1}, ALL),
        ({"data__sources__0__path": "c.txt"}, ALL),
        ({"data__sources__0__filters": ["c4"]}, ALL),
        ({"data__clean__personal_data": "keep"}, ALL),
        ({"data__sources__1__num_documents": 7}, ALL[1:]),
        ({"data__shard_tokens": 7}, ALL[1:]),
        ({"data__clean__near_duplicates": True}, ALL[1:]),
        ({"data__clean__samples": 7}, ["prepare"]),
        ({"sft__sources__0__path": "c.jsonl"}, ["prepare", *TRAINED[1:]]),
        ({"sft__sources__0__messages_column": "turns"}, ["prepare", *TRAINED[1:]]),
        ({"sft__sources__0__weight": 3}, TRAINED[1:]),
        ({"data__sources__0__weight": 3}, TRAINED),
        ({"train__tokens": 7}, TRAINED),
        ({"train__checkpoint_minutes": 7}, []),
        ({"prepare__tasks": 7}, []),
        ({"prepare__workers": 7}, []),
        ({"dpo": None}, []),
        ({"eval__instructions": 7}, ["eval", "export"]),
        ({"eval__data": "items"}, []),
        ({"export__temperature": 0}, ["export"]),
        ({"sft__sources__0__license": "mit"}, ["export"]),
        ({"title": "Tiny"}, ["export"]),
    ],
    ids=str,
)
def test_a_change_concerns_what_it_shapes(change: dict[str, Any], stages: list[str]) -> None:
    assert concerned(**change) == stages


def test_the_number_of_tasks_concerns_sources_with_a_limit() -> None:
    limited = {"sft__sources__0__max_documents": 7}
    before, after = stage_inputs(recipe(**limited)), stage_inputs(recipe(**limited, prepare__tasks=7))
    assert changed_fields(before["prepare"], after["prepare"]) == ["`prepare.tasks: 1 -> 7`"]
    assert not changed_fields(before["pretrain"], after["pretrain"])
    assert changed_fields(before["sft"], after["sft"])


def test_the_order_of_the_sources_counts() -> None:
    sources = [{"name": name, "type": "files", "path": name} for name in ("a", "b")]
    before, after = (stage_inputs(recipe(data__sources=part)) for part in (sources, sources[::-1]))
    assert changed_fields(before["prepare"], after["prepare"]) == ['`data.sources: ["a", "b"] -> ["b", "a"]`']


def test_of_a_new_source_only_the_name_is_given() -> None:
    more = {"name": "more", "type": "files", "path": "c.jsonl"}
    before, after = recipe(), recipe(sft__sources=[{"name": "talk", "type": "files", "path": "b.jsonl"}, more])
    changed = changed_fields(stage_inputs(before)["prepare"], stage_inputs(after)["prepare"])
    assert changed == ['`sft.sources: ["talk"] -> ["talk", "more"]`']


def test_the_source_inside_another_one_counts() -> None:
    def conversations(path: str) -> Recipe:
        inner = {"name": "inner", "type": "files", "path": path}
        return recipe(sft__sources=[{"name": "talk", "type": "constrained-chat", "from_source": inner}])

    before, after = (stage_inputs(conversations(path)) for path in ("a", "b"))
    assert changed_fields(before["sft"], after["sft"]) == ['`sft.sources.talk.from_source.path: "a" -> "b"`']


def test_a_source_depends_on_those_before_it_and_on_those_it_is_made_from() -> None:
    def changed(name: str, **changes: Any) -> list[str]:
        return changed_fields(
            source_inputs(recipe(), "pretrain", name), source_inputs(recipe(**changes), "pretrain", name)
        )

    assert changed("typos", data__sources__0__path="c.txt") == ['`data.sources.prose.path: "a.txt" -> "c.txt"`']
    assert not changed("prose", data__sources__1__num_documents=7)
    assert changed("typos", data__sources__1__num_documents=7)
    assert not changed("prose", sft__sources__0__path="c.jsonl")


def test_long_values_and_long_lists_are_cut() -> None:
    before = {f"train.field{number}": number for number in range(9)}
    after = {**{key: value + 1 for key, value in before.items()}, "train.field0": "long " * 50}
    sentence = name_fields(changed_fields(before, after))
    assert sentence.startswith('`train.field0: 0 -> "long ')
    assert sentence.endswith("`train.field4: 4 -> 5` and 4 more")
    assert len(sentence) < 250
