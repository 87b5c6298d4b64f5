import pytest
from helpers.instruction_samples import all_phrasings, longest_literal, training_prompts

from keylm.instructions.phrasings import Phrasings, with_text


@pytest.mark.parametrize("phrasings", all_phrasings().values(), ids=all_phrasings())
def test_held_out_phrasings_never_occur_in_training(phrasings: Phrasings) -> None:
    assert len(set(phrasings.held_out)) >= 2
    assert len(set(phrasings.train)) >= 5
    for phrasing in phrasings.held_out:
        longest = longest_literal(phrasing)
        assert len(longest.split()) > 1
        assert longest not in training_prompts()


def test_requests_stand_before_or_after_a_text() -> None:
    assert with_text("copy this", "what is first?") == (
        "copy this:\n{text}",
        'copy this: "{text}"',
        "copy this: {text}",
        "{text}\nCopy this.",
        "what is first?\n{text}",
        'what is first? "{text}"',
        "what is first? {text}",
        "{text}\nWhat is first?",
    )
