"""How many held-out instructions a model follows, beside what answers that say nothing come to.

As in IFEval (Zhou et al. 2023), every instruction is checked by a program, and an empty answer follows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import fmean
from typing import TYPE_CHECKING, Any

from keylm import chat
from keylm.data.instructions import Task
from keylm.evaluate.noise import standard_error, within_noise

if TYPE_CHECKING:
    from keylm.model import KeyLM
    from keylm.tokenizer import Tokenizer

NUM_SAMPLES = 12
CONSTANT_SENTENCE = "Here is a short answer to your question."
FILLER = "Here is what you asked for. {} I hope that this is a good answer. Ask me again if you want to know more."


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
    echoed: float
    """Share of an answer that its longest common run of words with the prompt is, on average."""
    words: float
    """Words of an answer, on average."""

    def as_dict(self) -> dict[str, Any]:
        """The shares and counts for a JSON file."""
        return {
            "followed": self.followed.share,
            "standard_error": standard_error(self.followed.share, self.followed.total),
            "copied": self.copied.share,
            "prompts_followed": self.prompts_followed.share,
            "on_topic": self.on_topic.share,
            "instructions": self.followed.total,
            "exercises": self.copied.total,
            "prompts": self.prompts_followed.total,
            "topics": self.on_topic.total,
            "echoed": self.echoed,
            "words": self.words,
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
        echoed=_mean(echoed(answer, task) for task, answer in zip(tasks, answers, strict=True)),
        words=_mean(len(answer.split()) for answer in answers),
    )


def echoed(answer: str, task: Task) -> float:
    """Share of the answer's words that its longest common run with the last prompt is; 0 of an empty answer."""
    said, asked = answer.split(), task.messages[-1]["content"].split()
    run = SequenceMatcher(None, said, asked, autojunk=False).find_longest_match()
    return run.size / len(said) if said else 0.0


def null_answers(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Answers of no merit: a score that does not beat theirs says nothing."""
    return {
        "constant sentence": [CONSTANT_SENTENCE for _ in tasks],
        "echoed prompt": [task.messages[-1]["content"] for task in tasks],
        "echo with filler": [FILLER.format(task.messages[-1]["content"]) for task in tasks],
        "empty": ["" for _ in tasks],
    }


def measure(model: KeyLM, tokenizer: Tokenizer, tasks: Sequence[Task], max_new_tokens: int) -> dict[str, Any]:
    """The score of the model's likeliest answers, those of the null answers, and the first conversations."""
    answers = _answers(model, tokenizer, tasks, max_new_tokens)
    return {
        **_beside_nulls(answers, tasks),
        "samples": [_sample(task, answer) for task, answer in zip(tasks[:NUM_SAMPLES], answers, strict=False)],
    }


def measure_splits(
    model: KeyLM, tokenizer: Tokenizer, splits: Mapping[str, Sequence[Task]], max_new_tokens: int
) -> dict[str, dict[str, Any]]:
    """The scores of each split of held-out tasks, apart."""
    return {
        name: _beside_nulls(_answers(model, tokenizer, tasks, max_new_tokens), tasks) for name, tasks in splits.items()
    }


def _answers(model: KeyLM, tokenizer: Tokenizer, tasks: Sequence[Task], max_new_tokens: int) -> list[str]:
    from keylm.generate import generate

    prompts = [chat.encode(tokenizer, task.messages, add_generation_prompt=True)[0] for task in tasks]
    return [tokenizer.decode(ids) for ids in generate(model, prompts, max_new_tokens, tokenizer.turn_end)]


def _beside_nulls(answers: Sequence[str], tasks: Sequence[Task]) -> dict[str, Any]:
    """The score, those of the null answers, and which of these it does not clearly beat."""
    scored = score(answers, tasks).as_dict()
    nulls = {name: score(null, tasks).as_dict() for name, null in null_answers(tasks).items()}
    shares = {name: null["followed"] for name, null in nulls.items()}
    near = within_noise(scored["followed"], scored["standard_error"], shares)
    return {**scored, "within_noise_of": near, "null_answers": nulls}


def _share(hits: Iterable[bool]) -> Share:
    counted = list(hits)
    return Share(sum(counted), len(counted))


def _mean(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return fmean(found) if found else 0.0


def _sample(task: Task, answer: str) -> dict[str, Any]:
    return {
        "messages": [*task.messages, {"role": "assistant", "content": answer}],
        "topic": task.topic,
        "names_topic": task.names_topic(answer),
        "kinds": task.kinds,
        "followed": task.followed(answer),
    }
