"""How many held-out generated instructions a model follows, next to trivial baselines.

As in IFEval (Zhou et al. 2023), every instruction is checked by a program, and an empty answer follows none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from keylm.evaluate.baselines import trivial_baselines
from keylm.evaluate.significance import not_significantly_above, standard_error
from keylm.inference.answers import Answer, ChatModel, describe_answers, prompt_copy
from keylm.instructions.constraints.catalog import ConstraintSet
from keylm.instructions.splits import SPLITS, held_out_examples
from keylm.instructions.task import Example, Task

NUM_SAMPLES = 12
"""Conversations that are kept to be read."""


@dataclass(frozen=True)
class Accuracy:
    """A share of items, with its counts."""

    num_correct: int
    total: int

    @property
    def value(self) -> float:
        """Between 0 and 1; 0 if there are no items."""
        return self.num_correct / self.total if self.total else 0.0


@dataclass(frozen=True)
class InstructionScores:
    """Scores of one set of answers."""

    instruction_accuracy: Accuracy
    """Share of the instructions in requests about a topic that are followed: the headline."""
    prompt_accuracy: Accuracy
    """Share of the requests with instructions in which every instruction is followed."""
    copy_accuracy: Accuracy
    """Share of the copy tasks that are answered exactly."""
    topic_mentioned: Accuracy
    """Share of the requests about a topic whose answer names it."""
    by_constraint: dict[str, Accuracy]
    """Accuracy of each constraint."""

    def as_dict(self) -> dict[str, Any]:
        """Accuracies, standard error and counts for a JSON file."""
        return {
            "instruction_accuracy": self.instruction_accuracy.value,
            "standard_error": standard_error(self.instruction_accuracy.value, self.instruction_accuracy.total),
            "prompt_accuracy": self.prompt_accuracy.value,
            "copy_accuracy": self.copy_accuracy.value,
            "topic_mentioned": self.topic_mentioned.value,
            "instructions": self.instruction_accuracy.total,
            "prompts": self.prompt_accuracy.total,
            "copy_tasks": self.copy_accuracy.total,
            "topic_prompts": self.topic_mentioned.total,
            "by_constraint": {
                name: {"followed": row.num_correct, "total": row.total} for name, row in self.by_constraint.items()
            },
        }


def score_answers(answers: Sequence[str], tasks: Sequence[Task]) -> InstructionScores:
    """Check each answer against its task.

    Raises:
        ValueError: The numbers of answers and tasks differ.
    """
    instructions: list[bool] = []
    prompts: list[bool] = []
    copies: list[bool] = []
    topics: list[bool] = []
    constraints: dict[str, list[bool]] = defaultdict(list)
    for task, answer in zip(tasks, answers, strict=True):
        followed = task.followed(answer)
        for name, is_followed in zip(task.constraint_names, followed, strict=True):
            constraints[name].append(is_followed)
        # Copy tasks have one right answer, and are scored separately from requests, which have many.
        if task.topic is None:
            copies += followed
            continue
        instructions += followed
        topics.append(task.names_topic(answer))
        # A request without constraints would always count as followed in full.
        if followed:
            prompts.append(all(followed))
    return InstructionScores(
        instruction_accuracy=_accuracy(instructions),
        prompt_accuracy=_accuracy(prompts),
        copy_accuracy=_accuracy(copies),
        topic_mentioned=_accuracy(topics),
        by_constraint={name: _accuracy(constraints[name]) for name in sorted(constraints)},
    )


def held_out_splits(
    num: int, seed: int, constraint_set: ConstraintSet, per_split: int | None = None
) -> dict[str, list[Example]]:
    """The examples of every held-out split.

    Args:
        num: Examples of the first split, the headline; the other splits get a quarter as many.
        seed: Seed of the examples.
        constraint_set: The constraints that the requests use.
        per_split: Examples of every split, in place of `num`.
    """
    # Every answer has to be generated, and the other splits only explain the headline.
    headline, *_ = SPLITS
    sizes = dict.fromkeys(SPLITS, per_split or -(-num // 4)) | {headline: per_split or num}
    return {split: held_out_examples(size, seed, split, constraint_set) for split, size in sizes.items()}


def measure_instruction_following(
    model: ChatModel, splits: Mapping[str, Sequence[Example]], max_new_tokens: int
) -> dict[str, dict[str, Any]]:
    """Score the model's greedy answers and the baselines on the same requests.

    Returns:
        For each split, the scores (`InstructionScores.as_dict`) and statistics (`describe_answers`) of the answers, and
        `reference_prompt_copy` (the prompt copy of the examples' own answers), `bits_per_byte` of the answers,
        `not_significantly_above` (names of baselines), `baselines` (scores and statistics by name) and `samples` (the
        first conversations).
    """
    # One call for all splits, so that the generator's batches stay full.
    requests = [example.task.messages for examples in splits.values() for example in examples]
    answers = iter(model.answer(requests, max_new_tokens))
    return {
        split: _measure_split(model, examples, list(islice(answers, len(examples))))
        for split, examples in splits.items()
    }


def _measure_split(model: ChatModel, examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    tasks = [example.task for example in examples]
    texts = [answer.text for answer in answers]
    scores = _score_and_describe(answers, tasks)
    baselines = {
        name: _score_and_describe([Answer(text) for text in baseline], tasks)
        for name, baseline in trivial_baselines(tasks).items()
    }
    references = [example.answer for example in examples]
    return {
        **scores,
        "reference_prompt_copy": fmean(map(prompt_copy, references, map(_user_text, tasks))),
        "bits_per_byte": round(model.bits_per_byte(texts), 4),
        "not_significantly_above": not_significantly_above(
            scores["instruction_accuracy"],
            scores["standard_error"],
            {name: row["instruction_accuracy"] for name, row in baselines.items()},
        ),
        "baselines": baselines,
        "samples": [
            {
                "messages": [*task.messages, {"role": "assistant", "content": text}],
                "topic": task.topic,
                "topic_mentioned": task.names_topic(text),
                "constraints": task.constraint_names,
                "followed": task.followed(text),
            }
            for task, text in zip(tasks[:NUM_SAMPLES], texts, strict=False)
        ],
    }


def _score_and_describe(answers: Sequence[Answer], tasks: Sequence[Task]) -> dict[str, Any]:
    scores = score_answers([answer.text for answer in answers], tasks)
    return {**scores.as_dict(), **describe_answers(answers, [_user_text(task) for task in tasks])}


def _user_text(task: Task) -> str:
    """All that the user says, in every turn."""
    # Not only the last turn: a request over two turns names its topic in the first.
    return "\n".join(message["content"] for message in task.messages if message["role"] == "user")


def _accuracy(outcomes: Sequence[bool]) -> Accuracy:
    return Accuracy(sum(outcomes), len(outcomes))
