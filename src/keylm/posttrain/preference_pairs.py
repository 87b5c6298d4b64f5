"""The pairs that the `dpo` stage learns from: an answer that follows its request, and one that breaks a constraint."""

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
    """Two answers to one prompt, of which the first is preferred."""

    prompt: list[Message]
    chosen: str
    rejected: str


def make_pairs(run: Run, num_pairs: int) -> list[PreferencePair]:
    """So many pairs of examples of the sources of `sft.sources` that know what is right, by their weights.

    Raises:
        UserError: a source is unusable, or gives fewer pairs than its share.
    """
    givers = [source for source in run.recipe.sft.sources if source.makes_pairs]
    fits = fits_sequence(run)

    def pair(example: Example, rng: Random) -> PreferencePair | None:
        twin = make_rejected(example, rng)
        if twin is None or not fits([*example.task.messages, assistant_message(twin)]):
            return None
        return PreferencePair(example.task.messages, example.answer, twin)

    return sample_examples(run, "dpo.num_pairs", num_pairs, givers, pair)
