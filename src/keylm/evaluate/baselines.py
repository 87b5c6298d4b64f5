"""Trivial baselines: what answers score that were made without understanding the request.

A score that is not significantly above its baselines says nothing about the model. Small models often are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from keylm.instructions.task import Task as InstructionTask
from keylm.instructions.task import user_message

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

CONSTANT_SENTENCE = "Here is a short answer to your question."
FILLER = "Here is what you asked for. {} I hope that this is a good answer. Ask me again if you want to know more."


def trivial_baselines(tasks: Sequence[InstructionTask]) -> dict[str, list[str]]:
    """Baseline answers to every task, by the baseline's name.

    `previous answer` repeats the assistant's last turn; it exists only if some request about a topic has one.
    """
    prompts = [task.messages[-1]["content"] for task in tasks]
    # Requests name words that answers must contain, so an echo follows many instructions without understanding any.
    baselines = {
        "constant sentence": [CONSTANT_SENTENCE for _ in tasks],
        "echoed prompt": prompts,
        "echo with filler": [FILLER.format(prompt) for prompt in prompts],
        "empty": ["" for _ in tasks],
    }
    previous = [task.messages[-2]["content"] if len(task.messages) > 1 else "" for task in tasks]
    # Copy tasks often have earlier turns; the baseline is worth a row only where requests about a topic have them.
    if any(answer and task.topic is not None for answer, task in zip(previous, tasks, strict=True)):
        baselines["previous answer"] = previous
    return baselines


def baseline_samples(task: Task, limit: int | None) -> dict[str, list[dict[str, Any]]]:
    """How an lm_eval task that generates text judges `trivial_baselines`, by baseline.

    Each sample holds its document (`doc`) and the value of every metric, under lm_eval's own keys.
    """
    documents = list(islice(task.eval_docs, limit))
    prompts = [InstructionTask([user_message(str(task.doc_to_text(document)))], None) for document in documents]
    return {
        name: [
            {"doc": row, **task.process_results(row, [answer])} for row, answer in zip(documents, answers, strict=True)
        ]
        for name, answers in trivial_baselines(prompts).items()
    }


def is_single_answer_choice(task: Task) -> bool:
    """Whether an lm_eval task asks one question with several choices, of which exactly one is right."""
    return task.OUTPUT_TYPE == "multiple_choice" and not task.multiple_input and not task.multiple_target


def baseline_choice_scores(task: Task, limit: int | None) -> dict[str, float]:
    """Accuracy of choosing at random, always the longest, and always the shortest choice."""
    documents = list(islice(task.eval_docs, limit))
    lengths = [[len(choice) for choice in task.doc_to_choice(document)] for document in documents]
    targets = [_target_index(task, document) for document in documents]
    return {
        "chance": fmean(1 / len(row) for row in lengths),
        "longest choice": _accuracy(lengths, targets),
        "shortest choice": _accuracy([[-length for length in row] for row in lengths], targets),
    }


def choices_only_scores(task: Task, model: LM, limit: int | None) -> dict[str, float]:
    """Accuracy of the model when it scores the choices without their question (Balepur et al. 2024).

    Both by likelihood and by likelihood per character, which is how lm_eval computes `acc` and `acc_norm`.
    """
    from lm_eval.api.instance import Instance

    documents = list(islice(task.eval_docs, limit))
    choices = [task.doc_to_choice(document) for document in documents]
    texts = [f"{task.config.target_delimiter}{choice}" for row in choices for choice in row]
    requests = [Instance("loglikelihood", {}, ("", text), number) for number, text in enumerate(texts)]
    results = iter(model.loglikelihood(requests))
    likelihoods = [[next(results)[0] for _ in row] for row in choices]
    normalized = [
        [likelihood / max(1, len(choice)) for likelihood, choice in zip(row, texts, strict=True)]
        for row, texts in zip(likelihoods, choices, strict=True)
    ]
    targets = [_target_index(task, document) for document in documents]
    return {
        "choices only": _accuracy(likelihoods, targets),
        "choices only, normalized": _accuracy(normalized, targets),
    }


def _accuracy(scores: Sequence[Sequence[float]], targets: Sequence[int]) -> float:
    """How often the first of the highest scores in a row is at the target's index."""
    # Ties go to the first choice, as in numpy's `argmax`, by which lm_eval decides.
    return fmean(row.index(max(row)) == target for row, target in zip(scores, targets, strict=True))


def _target_index(task: Task, document: dict[str, Any]) -> int:
    """Index of the right choice; some tasks state its text instead."""
    target = task.doc_to_target(document)
    return target if isinstance(target, int) else task.doc_to_choice(document).index(target)
