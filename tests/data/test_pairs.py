"""Pairs for preference tuning: the first answer follows, the second breaks one constraint, nothing held out is used."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from keylm.data import pairs
from keylm.data.documents import Document
from keylm.data.instructions import KIND_SETS, SPLITS, held_out, preferences
from keylm.errors import UserError
from keylm.run import Run, open_run

ANSWER = "The river is wide and slow. Boats carry stone and timber to the old harbour. Children swim there in summer."


def test_generated_pairs_are_a_function_of_the_seed() -> None:
    first, again, other = (list(islice(preferences.generated(seed, KIND_SETS["all"]), 50)) for seed in (0, 0, 1))
    assert first == again
    assert not set(map(str, first)) & set(map(str, other))
    assert all(pair.chosen != pair.rejected for pair in first)


def test_no_pair_asks_what_evaluation_asks() -> None:
    asked = {pair.prompt[-1]["content"] for pair in islice(preferences.generated(0, KIND_SETS["basic"]), 2000)}
    tasks = [task for split in SPLITS for task in held_out(300, 0, split)]
    assert not asked & {task.messages[-1]["content"] for task in tasks}
    assert len(asked) > 1900


def test_real_answers_get_a_twin_that_is_nearly_theirs() -> None:
    talks = [
        Document(
            messages=(
                {"role": "user", "content": f"Tell me about the river in town number {number}."},
                {"role": "assistant", "content": ANSWER},
            )
        )
        for number in range(40)
    ]
    found = list(preferences.constrained(talks, seed=0))
    assert len(found) > 30
    for pair in found:
        assert pair.prompt[-1]["content"] != ANSWER
        assert pair.chosen != pair.rejected


def test_sources_give_pairs_by_their_weights(prepared: Run, tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    rows = [
        [
            {"role": "user", "content": f"What is known of the river near house {number}?"},
            {"role": "assistant", "content": ANSWER},
        ]
        for number in range(30)
    ]
    talk.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    real = {"name": "real", "kind": "verified", "of": {"name": "talk", "kind": "files", "path": str(talk)}, "weight": 1}
    made = {"name": "made", "kind": "instructions", "num_documents": 10, "weight": 3}
    recipe = prepared.recipe.model_validate(
        {
            **prepared.recipe.model_dump(mode="json"),
            "sft": {"sources": [real, made], "sequence_length": 128, "batch_tokens": 256, "micro_batch_tokens": 128},
            "dpo": {},
        }
    )
    run = Run(prepared.folder, recipe)
    found = pairs.read(run, 8)
    assert sum("near house" in pair.prompt[-1]["content"] for pair in found) == 2
    with pytest.raises(UserError, match=r"source `real` gives \d+ pairs, and its share of dpo\.pairs is 1,000"):
        pairs.read(run, 4000)


def test_pairs_that_fit_no_sequence_are_left_out(prepared: Run, tmp_path: Path) -> None:
    short = open_run(prepared.folder / "recipe.yaml", ["dpo.pairs=4", "sft.sequence_length=16"], tmp_path)
    with pytest.raises(UserError, match=r"source `talk` gives 0 pairs, and its share of dpo\.pairs is 4"):
        pairs.read(Run(prepared.folder, short.recipe), 4)
