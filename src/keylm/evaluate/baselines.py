"""What blind answers score on lm_eval's tasks: answers that never read the question, and choices made without it."""

from __future__ import annotations

from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from keylm.evaluate.instructions import trivial_baselines
from keylm.instructions.task import Task as OurTask
from keylm.instructions.task import user_message

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task


def trivial_choice_scores(task: Task, limit: int | None) -> dict[str, float]:
    """What answers score that never read the question: by chance, always the longest choice, always the shortest."""
    documents = list(islice(task.eval_docs, limit))
    lengths = [[len(choice) for choice in task.doc_to_choice(document)] for document in documents]
    right = [_right_choice(task, document) for document in documents]
    return {
        "chance": fmean(1 / len(row) for row in lengths),
        "longest choice": fmean(row.index(max(row)) == index for row, index in zip(lengths, right, strict=True)),
        "shortest choice": fmean(row.index(min(row)) == index for row, index in zip(lengths, right, strict=True)),
    }


def trivial_answer_scores(task: Task, limit: int | None) -> dict[str, dict[str, float]]:
    """What null answers score by the task's own judgement, by metric."""
    documents = list(islice(task.eval_docs, limit))
    asked = [OurTask([user_message(str(task.doc_to_text(document)))], None) for document in documents]
    scores: dict[str, dict[str, float]] = {}
    for name, answers in trivial_baselines(asked).items():
        judged = [task.process_results(row, [answer]) for row, answer in zip(documents, answers, strict=True)]
        for metric, combine in task.aggregation().items():
            scores.setdefault(metric, {})[name] = float(combine([row[metric] for row in judged]))
    return scores


def scores_without_question(task: Task, model: LM, limit: int | None) -> dict[str, float]:
    """What the model scores when it sees the choices alone, by likelihood and by likelihood per character."""
    from lm_eval.api.instance import Instance

    documents = list(islice(task.eval_docs, limit))
    choices = [task.doc_to_choice(document) for document in documents]
    texts = [f"{task.config.target_delimiter}{choice}" for row in choices for choice in row]
    asked = [Instance("loglikelihood", {}, ("", text), number) for number, text in enumerate(texts)]
    found = iter(model.loglikelihood(asked, disable_tqdm=True))
    likelihoods = [[next(found)[0] for _ in row] for row in choices]
    per_character = [
        [said / max(1, len(choice)) for said, choice in zip(row, names, strict=True)]
        for row, names in zip(likelihoods, choices, strict=True)
    ]
    right = [_right_choice(task, document) for document in documents]
    return {
        "without question": fmean(row.index(max(row)) == index for row, index in zip(likelihoods, right, strict=True)),
        "without question, per character": fmean(
            row.index(max(row)) == index for row, index in zip(per_character, right, strict=True)
        ),
    }


def has_one_right_choice(task: Task) -> bool:
    """Whether the task asks to choose between answers to one question, of which one is right."""
    return task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input and not task.multiple_target


def _right_choice(task: Task, document: dict[str, Any]) -> int:
    """Index of the right choice; some tasks give its text."""
    target = task.doc_to_target(document)
    return target if isinstance(target, int) else task.doc_to_choice(document).index(target)
