"""The pairs that the `dpo` stage learns from: an answer that follows its request, and one that breaks a constraint."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from keylm.chat import Message
from keylm.data import examples
from keylm.data.instructions.broken import broken_twin
from keylm.data.instructions.task import Example, said
from keylm.recipe import Instructions, Verified
from keylm.run import Run


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which the first is preferred."""

    prompt: list[Message]
    chosen: str
    rejected: str


def read(run: Run, num_pairs: int) -> list[Pair]:
    """So many pairs of examples of the sources of `sft.sources` that know what is right, by their weights.

    Raises:
        UserError: a source is unusable, or gives fewer pairs than its share.
    """
    givers = [source for source in run.recipe.sft.sources if isinstance(source, Instructions | Verified)]
    fits = examples.fit(run)

    def pair(example: Example, rng: Random) -> Pair | None:
        twin = broken_twin(example, rng)
        if twin is None or not fits([*example.task.messages, said(twin)]):
            return None
        return Pair(example.task.messages, example.answer, twin)

    return examples.draw(run, "dpo.pairs", num_pairs, givers, pair)
