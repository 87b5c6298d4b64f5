"""Preference pairs: the chosen answer follows, the rejected one violates one constraint, nothing held out is used."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from keylm.common.errors import UserError
from keylm.data.sources.instructions import generate_requests
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
from keylm.instructions.splits import SPLITS, held_out
from keylm.posttrain.preference_pairs import make_pairs
from keylm.run import Run, open_run

ANSWER = "The river is wide and slow. Boats carry stone and timber to the old harbour. Children swim there in summer."


def test_generated_examples_depend_on_seed_and_stage() -> None:
    draws = [(0, "dpo"), (0, "dpo"), (1, "dpo"), (0, "grpo")]
    first, again, *others = (list(islice(generate_requests(*draw, CONSTRAINT_SETS["all"]), 50)) for draw in draws)
    assert first == again
    for other in others:
        assert not set(map(str, first)) & set(map(str, other))


def test_no_example_asks_what_evaluation_asks() -> None:
    examples = list(islice(generate_requests(0, "dpo", CONSTRAINT_SETS["basic"]), 2000))
    asked = {example.task.messages[-1]["content"] for example in examples}
    tasks = [task for split in SPLITS for task in held_out(300, 0, split)]
    assert not asked & {task.messages[-1]["content"] for task in tasks}
    assert len(asked) > 1900
    assert all(all(example.task.followed(example.answer)) for example in examples)


def test_pairs_are_drawn_by_source_weight(prepared: Run, tmp_path: Path) -> None:
    talk = tmp_path / "talk.jsonl"
    rows = [
        [
            {"role": "user", "content": f"What is known of the river near house {number}?"},
            {"role": "assistant", "content": ANSWER},
        ]
        for number in range(90)
    ]
    talk.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    real = {
        "name": "real",
        "type": "constrained-chat",
        "from_source": {"name": "talk", "type": "files", "path": str(talk)},
        "weight": 1,
    }
    made = {"name": "made", "type": "instructions", "num_documents": 10, "weight": 3}
    recipe = prepared.recipe.model_validate(
        {
            **prepared.recipe.model_dump(mode="json"),
            "sft": {"sources": [real, made], "sequence_length": 128, "batch_tokens": 256, "micro_batch_tokens": 128},
            "dpo": {},
        }
    )
    run = Run(prepared.folder, recipe)
    pairs = make_pairs(run, 8)
    assert sum("near house" in pair.prompt[-1]["content"] for pair in pairs) == 2
    assert all(pair.chosen != pair.rejected for pair in pairs)
    with pytest.raises(UserError, match=r"source `real` gives \d+ of the 1,000 examples that dpo\.num_pairs asks"):
        make_pairs(run, 4000)


def test_pairs_longer_than_a_sequence_are_left_out(prepared: Run, tmp_path: Path) -> None:
    short = open_run(prepared.folder / "recipe.yaml", ["dpo.num_pairs=4", "sft.sequence_length=16"], tmp_path)
    with pytest.raises(UserError, match=r"source `talk` gives 0 of the 4 examples that dpo\.num_pairs asks"):
        make_pairs(Run(prepared.folder, short.recipe), 4)
