"""How many held-out instructions a model follows, beside what answers that say nothing come to.

As in IFEval (Zhou et al. 2023), every instruction is checked by a program, and an empty answer follows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keylm import chat
from keylm.data.instructions import Task

if TYPE_CHECKING:
    from keylm.model import KeyLM
    from keylm.tokenizer import Tokenizer

NUM_SAMPLES = 12
CONSTANT_SENTENCE = "Here is a short answer to your question."


@dataclass(frozen=True)
class Share:
    """How many of so many."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 of nothing is 0."""
        return self.hits / self.total if self.total else 0.0


@dataclass(frozen=True)
class Score:
    """What a set of answers is worth."""

    followed: Share
    """Of the instructions in requests about a topic: the headline."""
    copied: Share
    """Of the copying exercises: those with the one right answer."""
    prompts_followed: Share
    """Of the requests about a topic that hold an instruction: those of which every instruction is followed."""
    on_topic: Share
    """Of the prompts that ask about a topic: those whose answer names it."""
    by_kind: dict[str, Share]
    """Of the instructions, kind by kind."""

    def as_dict(self) -> dict[str, Any]:
        """The shares and counts for a JSON file."""
        return {
            "followed": self.followed.share,
            "copied": self.copied.share,
            "prompts_followed": self.prompts_followed.share,
            "on_topic": self.on_topic.share,
            "instructions": self.followed.total,
            "exercises": self.copied.total,
            "prompts": self.prompts_followed.total,
            "topics": self.on_topic.total,
            "by_kind": {kind: {"followed": row.hits, "of": row.total} for kind, row in self.by_kind.items()},
        }


def score(answers: Sequence[str], tasks: Sequence[Task]) -> Score:
    """Judge each answer by its task.

    Raises:
        ValueError: there are not as many answers as tasks.
    """
    judged = [(task, task.followed(answer)) for task, answer in zip(tasks, answers, strict=True)]
    named = [task.names_topic(answer) for task, answer in zip(tasks, answers, strict=True) if task.topic is not None]
    kinds = [(kind, hit) for task, hits in judged for kind, hit in zip(task.kinds, hits, strict=True)]
    requests = [hits for task, hits in judged if task.topic is not None]
    return Score(
        followed=_share(hit for hits in requests for hit in hits),
        copied=_share(hit for task, hits in judged if task.topic is None for hit in hits),
        prompts_followed=_share(all(hits) for hits in requests if hits),
        on_topic=_share(named),
        by_kind={
            name: _share(hit for kind, hit in kinds if kind == name) for name in sorted({kind for kind, _ in kinds})
        },
    )


def null_answers(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Answers of no merit: a score that does not beat theirs says nothing."""
    return {
        "constant sentence": [CONSTANT_SENTENCE for _ in tasks],
        "echoed prompt": [task.messages[-1]["content"] for task in tasks],
        "empty": ["" for _ in tasks],
    }


def measure(model: KeyLM, tokenizer: Tokenizer, tasks: Sequence[Task], max_new_tokens: int) -> dict[str, Any]:
    """The score of the model's likeliest answers, those of the null answers, and the first conversations."""
    from keylm.generate import generate

    prompts = [chat.encode(tokenizer, task.messages, add_generation_prompt=True)[0] for task in tasks]
    answers = [tokenizer.decode(ids) for ids in generate(model, prompts, max_new_tokens, tokenizer.turn_end)]
    return {
        **score(answers, tasks).as_dict(),
        "null_answers": {name: score(nulls, tasks).as_dict() for name, nulls in null_answers(tasks).items()},
        "samples": [_sample(task, answer) for task, answer in zip(tasks[:NUM_SAMPLES], answers, strict=False)],
    }


def _share(hits: Iterable[bool]) -> Share:
    counted = list(hits)
    return Share(sum(counted), len(counted))


def _sample(task: Task, answer: str) -> dict[str, Any]:
    return {
        "messages": [*task.messages, {"role": "assistant", "content": answer}],
        "topic": task.topic,
        "names_topic": task.names_topic(answer),
        "kinds": task.kinds,
        "followed": task.followed(answer),
    }
