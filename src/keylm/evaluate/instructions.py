"""How many held-out instructions a model follows, beside what answers that say nothing come to.

As in IFEval (Zhou et al. 2023), every instruction is checked by a program, and an empty answer follows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich.table import Table

from keylm.common.console import console
from keylm.evaluate.significance import remark, standard_error, within_noise
from keylm.inference.answers import Answer, ChatModel, describe_answers, prompt_copy
from keylm.instructions.constraints.catalog import ConstraintSet
from keylm.instructions.splits import SPLITS, held_out_examples
from keylm.instructions.task import Example, Task

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
            "by_kind": {kind: {"followed": row.hits, "of": row.total} for kind, row in self.by_kind.items()},
        }


def score(answers: Sequence[str], tasks: Sequence[Task]) -> Score:
    """Judge each answer by its task.

    Raises:
        ValueError: there are not as many answers as tasks.
    """
    judged = [(task, task.followed(answer)) for task, answer in zip(tasks, answers, strict=True)]
    named = [task.names_topic(answer) for task, answer in zip(tasks, answers, strict=True) if task.topic is not None]
    kinds = [(kind, hit) for task, hits in judged for kind, hit in zip(task.constraint_names, hits, strict=True)]
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


def trivial_baselines(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Answers of no merit: a score that does not beat theirs says nothing."""
    nulls = {
        "constant sentence": [CONSTANT_SENTENCE for _ in tasks],
        "echoed prompt": [task.messages[-1]["content"] for task in tasks],
        "echo with filler": [FILLER.format(task.messages[-1]["content"]) for task in tasks],
        "empty": ["" for _ in tasks],
    }
    before = [task.messages[-2]["content"] if len(task.messages) > 1 else "" for task in tasks]
    is_talk = any(said and task.topic is not None for said, task in zip(before, tasks, strict=True))
    return {**nulls, "answer before": before} if is_talk else nulls


def splits(num: int, seed: int, kinds: ConstraintSet, each: int | None = None) -> dict[str, list[Example]]:
    """The examples of every split: `num` of the headline and a quarter as many of the others, or `each` of all."""
    nums = dict.fromkeys(SPLITS, each or -(-num // 4)) | {next(iter(SPLITS)): each or num}
    return {split: held_out_examples(size, seed, split, kinds) for split, size in nums.items()}


def measure(speaker: ChatModel, examples: Sequence[Example], max_new_tokens: int) -> dict[str, Any]:
    """The score of the model's likeliest answers, those of the null answers, and the first conversations.

    `within_noise_of` are the null answers that the score does not clearly beat; `echoed_by_examples` is the share of
    echo in the examples' own answers.
    """
    tasks = [example.task for example in examples]
    answers = speaker.answer([task.messages for task in tasks], max_new_tokens)
    texts = [answer.text for answer in answers]
    scored = _described(answers, tasks)
    nulls = {name: _described([*map(Answer, null)], tasks) for name, null in trivial_baselines(tasks).items()}
    shares = {name: null["followed"] for name, null in nulls.items()}
    return {
        **scored,
        "echoed_by_examples": fmean(map(prompt_copy, [example.answer for example in examples], _asked(tasks))),
        "bits_per_byte": round(speaker.bits_per_byte(texts), 4),
        "within_noise_of": within_noise(scored["followed"], scored["standard_error"], shares),
        "null_answers": nulls,
        "samples": [_sample(task, text) for task, text in zip(tasks[:NUM_SAMPLES], texts, strict=False)],
    }


def print_scores(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the scores of splits beside the best null answer, and what the answers are like."""
    scores = _table("split", "instructions", "followed", "± s.e.", "best null", "")
    about = _table("split", "on topic", "topical", "cut off", "loops", "echo", "of examples", "words", "bits/byte")
    for name, row in found.items():
        best = max(float(null["followed"]) for null in row["null_answers"].values())
        shares = [f"{share:.1%}" for share in (row["followed"], row["standard_error"], best)]
        scores.add_row(name, str(row["instructions"]), *shares, remark(row["within_noise_of"]))
        kept = [f"{row[key]:.1%}" for key in _SHARES]
        about.add_row(name, *kept, f"{row['words']:.1f}", f"{row['bits_per_byte']:.2f}")
    console.print(scores, about, sep="\n")


_SHARES = ("on_topic", "topical", "unfinished", "looped", "echoed", "echoed_by_examples")


def _table(*heads: str) -> Table:
    return Table(*heads, box=None, padding=(0, 2, 0, 0))


def _described(answers: Sequence[Answer], tasks: Sequence[Task]) -> dict[str, Any]:
    """How the answers are judged, and what they are like."""
    scored = score([answer.text for answer in answers], tasks).as_dict()
    return {**scored, **describe_answers(answers, _asked(tasks))}


def _asked(tasks: Sequence[Task]) -> list[str]:
    """All that the user says in each task."""
    return ["\n".join(each["content"] for each in task.messages if each["role"] == "user") for task in tasks]


def _share(hits: Iterable[bool]) -> Share:
    counted = list(hits)
    return Share(sum(counted), len(counted))


def _sample(task: Task, answer: str) -> dict[str, Any]:
    return {
        "messages": [*task.messages, {"role": "assistant", "content": answer}],
        "topic": task.topic,
        "names_topic": task.names_topic(answer),
        "kinds": task.constraint_names,
        "followed": task.followed(answer),
    }
