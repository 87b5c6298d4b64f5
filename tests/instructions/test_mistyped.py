from random import Random

from helpers.instruction_samples import make_sampler

from keylm.instructions import mistyped
from keylm.instructions.constraints.catalog import (
    TRAINED,
)
from keylm.instructions.requests import topic_request


def test_some_users_mistype_but_keep_the_topic() -> None:
    examples = [
        topic_request(make_sampler(seed), [constraint_type]) for seed, constraint_type in enumerate(20 * TRAINED)
    ]
    typed = [mistyped.maybe_mistype(example, Random(seed)) for seed, example in enumerate(examples)]
    changed = [(old, new) for old, new in zip(examples, typed, strict=True) if new != old]
    assert 0.11 < len(changed) / len(examples) < 0.19
    for old, new in changed:
        assert new.answer == old.answer
        assert new.task.topic == old.task.topic
        assert new.task.topic.lower() in new.task.messages[0]["content"].lower()
