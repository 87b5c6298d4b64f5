"""Preference pairs for DPO: an answer that follows its request, and a copy that violates one constraint."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from keylm.common.documents import Message
from keylm.instructions.rejected import make_rejected
from keylm.instructions.task import Example, assistant_message
from keylm.posttrain.examples import fits_sequence, sample_examples
from keylm.run import Run


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, of which `chosen` is preferred."""

    prompt: list[Message]
    chosen: str
    rejected: str


def make_pairs(run: Run, num_pairs: int) -> list[PreferencePair]:
    """Make pairs from the sources of `sft.sources` whose answers can be verified, in proportion to their weights.

    Both conversations of a pair fit `sft.sequence_length`.

    Raises:
        UserError: a source is unusable, or yields fewer pairs than its share.
    """
    sources = [source for source in run.recipe.sft.sources if source.makes_examples]
    fits = fits_sequence(run)

    def make_pair(example: Example, rng: Random) -> PreferencePair | None:
        rejected = make_rejected(example, rng)
        if rejected is None or not fits([*example.task.messages, assistant_message(rejected)]):
            return None
        return PreferencePair(example.task.messages, example.answer, rejected)

    return sample_examples(run, "dpo.num_pairs", num_pairs, sources, make_pair)
