"""`instructions`: generated instructions and small conversations whose answers are correct by construction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from random import Random

from keylm.common.documents import Document
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS, ConstraintSet
from keylm.instructions.generate import generate_conversations
from keylm.instructions.requests import topic_request
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example
from keylm.recipe.sources import InstructionsConfig


def generate_requests(seed: int, stage: str, constraint_set: ConstraintSet) -> Iterator[Example]:
    """An endless stream of requests with one or two constraints, in the words and phrasings of training.

    Every `seed` and `stage` gives other requests.
    """
    for number in count():
        # A generator for each request: a change in how one is drawn leaves the others as they are.
        sampler = Sampler(Random(f"{stage}:{seed}:{number}"))
        yield topic_request(sampler, sampler.rng.sample(constraint_set, sampler.choice((1, 1, 2))))


class InstructionsSource(SourceType[InstructionsConfig]):
    """Generated conversations."""

    def read_documents(self, source: InstructionsConfig, request: ReadRequest) -> Iterator[Document]:
        """Generate `source.num_documents` conversations."""
        constraint_set = CONSTRAINT_SETS[source.constraint_set]
        conversations = generate_conversations(source.num_documents, request.seed, constraint_set)
        documents = (Document(messages=tuple(messages)) for messages in conversations)
        return request.progress.count(documents, source.num_documents)

    def generate_examples(
        self,
        source: InstructionsConfig,
        stage: str,
        seed: int,
        parents: Iterable[Document],  # noqa: ARG002
    ) -> Iterator[Example]:
        """Requests without end, under the source's constraint set."""
        return generate_requests(seed, stage, CONSTRAINT_SETS[source.constraint_set])
