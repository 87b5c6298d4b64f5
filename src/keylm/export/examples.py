"""The requests that the chat page suggests: what the model was taught and follows, not what a stranger might ask."""

from __future__ import annotations

from keylm.evaluate.results import last_finetuned_stage
from keylm.export.card_scores import measured
from keylm.run import Run

_COUNT = 3
_MAX_CHARACTERS = 120
"""Of a request: a longer one does not fit on its button."""


def example_requests(run: Run) -> list[str]:
    """`export.examples` of the recipe, or else up to three held-out requests that the model follows in every point.

    Empty if instruction following was not measured.
    """
    if run.recipe.export.examples:
        return run.recipe.export.examples
    scores = measured(run, "instruction_following")
    stage = last_finetuned_stage(scores)
    samples = scores[stage].get("samples", []) if stage else []
    followed = [sample["messages"] for sample in samples if sample["constraints"] and all(sample["followed"])]
    # A request over several turns is no first message.
    requests = [
        messages[0]["content"] for messages in followed if [turn["role"] for turn in messages] == ["user", "assistant"]
    ]
    return [request for request in requests if len(request) <= _MAX_CHARACTERS][:_COUNT]
