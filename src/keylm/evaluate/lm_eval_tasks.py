"""Public benchmarks by lm_eval, in this process: its prompts and metrics, on our weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keylm.common.errors import UserError
from keylm.data.cleaning.benchmark_items import load_tasks
from keylm.evaluate.baselines import (
    baseline_choice_scores,
    baseline_samples,
    choices_only_scores,
    is_single_answer_choice,
)
from keylm.evaluate.significance import bootstrap_standard_error, not_significantly_above
from keylm.inference.answers import Answer, describe_answers
from keylm.run import Run
from keylm.stages import completed_training_stages

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.tasks.manager import TaskDict


def run_tasks(
    model: Run | Path,
    names: Sequence[str],
    limit: int | None = None,
    data: Path | None = None,
    baselines: bool = False,
    keep_sample: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score a model on lm_eval tasks.

    Args:
        model: A run, of which the last trained weights are scored, or a GGUF file or transformers folder.
        names: Tasks by lm_eval's names; without `data` also groups and tags.
        limit: Documents per task (default: all).
        data: Folder with the data files (default: they come from the hub).
        baselines: Also compute the baselines that need the model: choosing without the question.
        keep_sample: Is given what lm_eval's `log_samples` keeps of every document, with the name of its `task`: the
            document, the prompts, the model's responses, and the value of every metric.

    Returns:
        By task: `documents`, lm_eval's `version`, `scores` and `standard_errors` by metric, `baselines` (scores by
        metric and baseline), `not_significantly_above` (baselines by metric), `answer_statistics` of generated
        answers, and of tasks in IFEval's format `by_instruction` (how often each type was followed strictly, by the
        model and by each baseline).

    Raises:
        UserError: A task is unknown, its data are missing, the run is not trained, or the model cannot be loaded.
    """
    # Tasks first: what is missing is named before any weights are loaded.
    loaded = load_tasks(names, data)
    from keylm.evaluate.lm_eval_adapter import external_lm, run_lm

    lm = external_lm(model) if isinstance(model, Path) else run_lm(model)
    for part in loaded:
        for task in part["tasks"].values():
            _check_choice_lengths(task, lm, limit)
    scores: dict[str, dict[str, Any]] = {}
    for part in loaded:
        scores |= _evaluate(lm, part, limit, baselines, keep_sample, partial(_bits_per_byte, model, lm))
    return scores


def _evaluate(
    lm: LM,
    loaded: TaskDict,
    limit: int | None,
    baselines: bool,
    keep_sample: Callable[[dict[str, Any]], None] | None,
    bits_per_byte: Callable[[Sequence[str]], float],
) -> dict[str, dict[str, Any]]:
    """The scores of a task, or of a group and its tasks."""
    from lm_eval.evaluator import evaluate

    tasks = loaded["tasks"]
    for task in tasks.values():
        # Half of the context is left for the prompt: lm_eval's IFEval requests 1,280 tokens, whatever the model.
        if task.OUTPUT_TYPE == "generate_until":
            requested = task.config.generation_kwargs.get("max_gen_toks", lm.max_length)
            options = {"max_gen_toks": min(requested, lm.max_length // 2)}
            task.set_config("generation_kwargs", options, update=True)
    # Tasks that generate text use the chat template; likelihoods are compared on plain text, as is usual.
    generates = any(task.OUTPUT_TYPE == "generate_until" for task in tasks.values())
    log_samples = generates or keep_sample is not None
    output = evaluate(lm=lm, task_dict=loaded, limit=limit, apply_chat_template=generates, log_samples=log_samples)
    scores = {}
    for name, row in output["results"].items():
        task, samples = tasks.get(name), (output.get("samples") or {}).get(name, [])
        scores[name] = {
            "version": output["versions"].get(name),
            "documents": row["sample_len"],
            **_scores_and_baselines(row, task, samples, lm, limit, baselines),
            "answer_statistics": {},
        }
        if task is not None and task.OUTPUT_TYPE == "generate_until":
            scores[name]["answer_statistics"] = _answer_statistics(task, lm, samples, bits_per_byte)
        if keep_sample is not None:
            for sample in samples:
                keep_sample({"task": name, **sample})
    return scores


def _scores_and_baselines(
    row: dict[str, Any], task: Task | None, samples: list[dict[str, Any]], lm: LM, limit: int | None, baselines: bool
) -> dict[str, Any]:
    """Scores, standard errors and baselines by metric; a group of tasks (`task` is None) has no baselines."""
    scores, errors = _metrics(row, ","), _metrics(row, "_stderr,")
    by_metric: dict[str, dict[str, float]] = {}
    by_instruction: dict[str, dict[str, Any]] = {}
    if task is not None and is_single_answer_choice(task):
        choice_scores = baseline_choice_scores(task, limit)
        if baselines:
            choice_scores |= choices_only_scores(task, lm, limit)
        # The same for every metric: normalizing by length changes what the model chooses, not what is right.
        by_metric = dict.fromkeys(scores, choice_scores)
    if task is not None and task.OUTPUT_TYPE == "generate_until":
        judged_baselines = baseline_samples(task, limit)
        by_instruction = _by_instruction(samples, judged_baselines)
        for metric, aggregate in task.aggregation().items():
            by_metric[metric] = {
                name: float(aggregate([sample[metric] for sample in judged]))
                for name, judged in judged_baselines.items()
            }
            # lm_eval states no standard error for aggregations of its tasks' own, such as IFEval's instruction level.
            items = [sample[metric] for sample in samples if metric in sample]
            if metric in scores and metric not in errors:
                error = bootstrap_standard_error(aggregate, items)
                errors |= {} if error is None else {metric: error}
    return {
        "scores": scores,
        "standard_errors": errors,
        "baselines": by_metric,
        "not_significantly_above": {
            metric: not_significantly_above(score, errors.get(metric), by_metric.get(metric, {}))
            for metric, score in scores.items()
        },
        "by_instruction": by_instruction,
    }


def _by_instruction(
    samples: Sequence[dict[str, Any]], judged_baselines: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, dict[str, Any]]:
    """How often the model and the baselines followed each type of instruction strictly, most frequent type first."""
    model = _strict_verdicts(samples)
    baselines = {name: _strict_verdicts(judged) for name, judged in judged_baselines.items()}
    return {
        instruction: {
            "followed": sum(model[instruction]),
            "total": len(model[instruction]),
            "baselines": {name: sum(verdicts[instruction]) for name, verdicts in baselines.items()},
        }
        for instruction in sorted(model, key=lambda instruction: -len(model[instruction]))
    }


def _strict_verdicts(samples: Sequence[dict[str, Any]]) -> dict[str, list[bool]]:
    """Whether each instruction was followed strictly, by its type; empty unless IFEval's checkers judged."""
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        if "inst_level_strict_acc" in sample:
            types = sample["doc"]["instruction_id_list"]
            for instruction, is_followed in zip(types, sample["inst_level_strict_acc"], strict=True):
                verdicts[instruction].append(is_followed)
    return verdicts


def _metrics(row: dict[str, Any], separator: str) -> dict[str, float]:
    """Numbers by metric, from lm_eval's keys: `METRIC,FILTER` for scores and `METRIC_stderr,FILTER` for errors."""
    numbers = {}
    for key, value in row.items():
        metric, _, filter_name = key.partition(separator)
        if filter_name and "_stderr" not in metric and isinstance(value, float):
            numbers[metric if filter_name == "none" else f"{metric} ({filter_name})"] = value
    return numbers


def _answer_statistics(
    task: Task, lm: LM, samples: Sequence[dict[str, Any]], bits_per_byte: Callable[[Sequence[str]], float]
) -> dict[str, float]:
    """Statistics (`describe_answers`) and bits per byte of generated answers."""
    limit = task.config.generation_kwargs["max_gen_toks"]
    texts = [sample["resps"][0][0] for sample in samples]
    # lm_eval returns text only. Encoded again, an answer that was cut off may have a few tokens fewer than the limit.
    answers = [Answer(text, ended=len(lm.tok_encode(text)) < 0.95 * limit) for text in texts]
    statistics = describe_answers(answers, [str(task.doc_to_text(sample["doc"])) for sample in samples])
    return {**statistics, "bits_per_byte": round(bits_per_byte(texts), 4)}


def _bits_per_byte(model: Run | Path, lm: LM, texts: Sequence[str]) -> float:
    """Bits per byte of texts under a run's pretrained weights, or under an external model itself."""
    from keylm.evaluate.bits_per_byte import plain_bits_per_byte
    from keylm.evaluate.chat_models import TransformersChatModel
    from keylm.inference.weights import load_weights
    from keylm.tokenizer.tokenizer import Tokenizer

    if isinstance(model, Path):
        return TransformersChatModel(lm.model, lm.tokenizer).bits_per_byte(texts)
    base_model = load_weights(model, completed_training_stages(model)[0])
    return plain_bits_per_byte(base_model, Tokenizer.load(model.stage("tokenizer")), texts)


def _check_choice_lengths(task: Task, lm: LM, limit: int | None) -> None:
    """Check that every choice fits the context.

    Raises:
        UserError: One does not.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return
    choices = (choice for document in islice(task.eval_docs, limit) for choice in task.doc_to_choice(document))
    for choice in choices:
        # A token has at least one byte, so only choices with many bytes need to be encoded.
        if len(choice.encode()) >= lm.max_length <= len(lm.tok_encode(choice)):
            raise UserError(
                f"task `{task.config.task}` has an answer of more than the {lm.max_length} tokens of the model's "
                f"context (model.max_position_embeddings): leave the task out"
            )
