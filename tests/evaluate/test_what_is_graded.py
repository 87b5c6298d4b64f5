"""What was not taught is not graded; what the released weights make of held-out conversations is kept to be read."""

from __future__ import annotations

import pytest

from keylm.common.files import read_json
from keylm.evaluate.stage import run_eval, teaches_requests
from keylm.recipe import Recipe
from keylm.run import Run
from keylm.stages import run_until

OWN = {"name": "talks", "type": "files", "path": "talks.jsonl"}
HUB = {"name": "hub", "type": "hub", "dataset": "somebody/chats"}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([OWN], False),
        ([HUB], True),
        ([{"name": "made", "type": "instructions"}], True),
        ([{"name": "edited", "type": "constrained-chat", "from_source": OWN}], True),
        ([OWN, {"name": "made", "type": "instructions"}], True),
    ],
)
def test_instructions_are_graded_where_they_may_be_known(
    sources: list[dict[str, object]], expected: bool, tiny_run: Run
) -> None:
    text = {"sources": [{"name": "prose", "type": "files", "path": "prose.txt"}]}
    recipe = Recipe.model_validate({"name": "own", "data": text, "sft": {"sources": sources}})
    assert teaches_requests(Run(tiny_run.folder / "other", recipe)) == expected


def test_samples_are_at_the_settings_of_the_release(tiny_run: Run) -> None:
    run_until(tiny_run, "pretrain")
    run_until(tiny_run, "sft")
    tiny_run.begin("eval")
    metadata = run_eval(tiny_run)
    kept = read_json(tiny_run.stage("eval") / "held_out_samples.json")
    assert (kept["temperature"], kept["repetition_penalty"]) == (0.7, 1.1)
    assert len(kept["samples"]) == 8
    assert all(row["messages"][-1]["role"] == "user" and row["reference"] for row in kept["samples"])
    # The stage's metadata has numbers.
    assert "held_out_samples" not in metadata
