"""Public benchmarks through lm_eval, in this process: its own prompts and metrics, on our weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.data.cleaning.benchmark_items import load_tasks
from keylm.evaluate import provenance, reference_scores
from keylm.evaluate.baselines import (
    has_one_right_choice,
    scores_without_question,
    trivial_answer_scores,
    trivial_choice_scores,
)
from keylm.evaluate.significance import remark, within_noise
from keylm.inference.answers import Answer, describe_answers
from keylm.run import Run
from keylm.stages import completed_training_stages

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.tasks.manager import TaskDict

_BATCH_SIZE = 16


def run_tasks(
    run: Run | Path, names: Sequence[str], limit: int | None = None, data: Path | None = None, baselines: bool = False
) -> dict[str, dict[str, Any]]:
    """Score a run's last weights (SFT, or else pretraining), or another model, on lm_eval tasks.

    Args:
        run: the trained run, or the GGUF file or folder of a model that is none.
        names: tasks, or without `data` also groups and tags, by lm_eval's names.
        limit: documents per task; all by default.
        data: folder with the data files; without it they come from the hub.
        baselines: also let the model choose between the answers without their question.

    Returns:
        By task: `documents`, lm_eval's `version` of it, `scores` and `standard_errors` by metric, `null`, by metric the
        scores of blind answers, `within_noise_of`, by metric those that the score does not clearly beat, and `answers`,
        what written answers are like.

    Raises:
        UserError: a task is unknown, or its data are not there, or the run is not trained.
    """
    loaded = load_tasks(names, data)
    model = _other(run) if isinstance(run, Path) else load_model(run)
    for task in (task for part in loaded for task in part["tasks"].values()):
        _check_choices(task, model, limit)
    scores: dict[str, dict[str, Any]] = {}
    for part in loaded:
        scores |= _score(model, part, limit, baselines, partial(_bits_per_byte, run, model))
    return scores


def run_and_print(
    run: Run | Path, names: Sequence[str], limit: int | None = None, data: Path | None = None, baselines: bool = False
) -> dict[str, Any]:
    """Score as `run_tasks` does, print tables, and return the scores with all that they depend on."""
    scores = run_tasks(run, names, limit, data, baselines)
    _print_scores(scores)
    _print_published(scores)
    return {**provenance.provenance_of(run, list(names), data), "limit": limit, "tasks": scores}


def _print_scores(scores: dict[str, dict[str, Any]]) -> None:
    """Every score beside those of blind answers, and what written answers are like."""
    nulls = [null for facts in scores.values() for null in facts["null"].values()]
    names = list(dict.fromkeys(name for null in nulls for name in null))
    table = Table("task", "documents", "metric", "score", "± s.e.", *names, "", box=None, padding=(0, 2, 0, 0))
    for name, facts in scores.items():
        for metric, score in facts["scores"].items():
            null = facts["null"].get(metric, {})
            shares = [score, facts["standard_errors"].get(metric), *(null.get(answer) for answer in names)]
            said = remark(facts["within_noise_of"].get(metric, []))
            table.add_row(name, f"{facts['documents']:,}", metric, *(_percent(share) for share in shares), said)
    console.print(table)
    written = {name: facts["answers"] for name, facts in scores.items() if facts["answers"]}
    if written:
        table = Table("task", *next(iter(written.values())), box=None, padding=(0, 2, 0, 0))
        for name, told in written.items():
            table.add_row(name, *(f"{value:.3f}" for value in told.values()))
        console.print(table)


def _print_published(scores: dict[str, dict[str, Any]]) -> None:
    """The scores that the published card has too, beside its own."""
    rows = reference_scores.beside(scores)
    if rows:
        table = Table("as on the card of", reference_scores.NAME, "here", "± s.e.", "", box=None, padding=(0, 2, 0, 0))
        for row in rows:
            shares = (row.claim.share, row.score, row.error)
            table.add_row(row.claim.title, *map(_percent, shares), row.remark)
        console.print(table)


def load_model(run: Run) -> LM:
    """The run's last weights in float32: our own model scores given answers, llama.cpp writes."""
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from keylm.evaluate.native_lm import RunLM
    from keylm.inference.generator import generator_of_run
    from keylm.model.transformer import load_model

    if not completed_training_stages(run):
        raise UserError(f"{run.folder} has no trained weights to score: run `keylm pretrain {run.folder}` first")
    stage = completed_training_stages(run)[-1]
    last = run.weights(stage)
    config = Qwen3Config(**run.recipe.model.model_dump(), tie_word_embeddings=False)
    model = Qwen3ForCausalLM(config)
    model.load_state_dict(load_file(last))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.stage("tokenizer"))
    # Without it `hf` goes on behind the end of an answer for as long as another of its batch does.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    options = {"pretrained": model.eval(), "tokenizer": tokenizer, "batch_size": _BATCH_SIZE, "add_bos_token": False}
    return RunLM(load_model(run.recipe.model, last), partial(generator_of_run, run, stage), **options)


def _other(path: Path) -> LM:
    """Somebody else's model in lm_eval's own adapter; of a GGUF, llama.cpp writes the answers."""
    from lm_eval.models.huggingface import HFLM

    from keylm.evaluate.external_models import load_external, writer
    from keylm.evaluate.lm_eval_adapter import LlamaCppLM

    model, tokenizer = load_external(path)
    options = {"pretrained": model, "tokenizer": tokenizer, "batch_size": _BATCH_SIZE}
    return LlamaCppLM(partial(writer, path, model), **options) if path.is_file() else HFLM(**options)


def _bits_per_byte(run: Run | Path, model: LM, texts: Sequence[str]) -> float:
    """Bits per byte of texts under a run's weights before SFT, if it has them, or under the other model itself."""
    from keylm.evaluate.external_models import TransformersChatModel
    from keylm.evaluate.run_model import bits_per_byte
    from keylm.model.transformer import load_model
    from keylm.tokenizer.tokenizer import Tokenizer

    if isinstance(run, Path):
        return TransformersChatModel(model.model, model.tokenizer).bits_per_byte(texts)
    plain = load_model(run.recipe.model, run.weights(completed_training_stages(run)[0]))
    return bits_per_byte(plain, Tokenizer.load(run.stage("tokenizer")), texts)


def _score(
    model: LM, loaded: TaskDict, limit: int | None, baselines: bool, bits_per_byte: Callable[[Sequence[str]], float]
) -> dict[str, dict[str, Any]]:
    """Tasks that ask for an answer are asked in the chat template; those that compare likelihoods are plain text."""
    from lm_eval.evaluator import evaluate

    tasks = loaded["tasks"]
    for task in tasks.values():
        _fit_answers(task, model.max_length)
    chats = any(task.OUTPUT_TYPE == "generate_until" for task in tasks.values())
    found = evaluate(lm=model, task_dict=loaded, limit=limit, apply_chat_template=chats, log_samples=chats)
    facts = {
        name: {"version": found["versions"].get(name), **_facts(row, tasks.get(name), model, limit, baselines)}
        for name, row in found["results"].items()
    }
    for name, task in tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            facts[name]["answers"] = _described(task, model, found["samples"][name], bits_per_byte)
    return facts


def _described(
    task: Task, model: LM, samples: Sequence[dict[str, Any]], bits_per_byte: Callable[[Sequence[str]], float]
) -> dict[str, float]:
    """What written answers are like; one of nearly as many tokens as are allowed counts as unfinished."""
    most = task.config.generation_kwargs["max_gen_toks"]
    texts = [sample["resps"][0][0] for sample in samples]
    answers = [Answer(text, ended=len(model.tok_encode(text)) < 0.95 * most) for text in texts]
    told = describe_answers(answers, [str(task.doc_to_text(sample["doc"])) for sample in samples])
    return {**told, "bits_per_byte": round(bits_per_byte(texts), 4)}


def _facts(row: dict[str, Any], task: Task | None, model: LM, limit: int | None, baselines: bool) -> dict[str, Any]:
    """A task's scores beside those of blind answers; a group of tasks has none."""
    scores, errors = _numbers(row, ","), _numbers(row, "_stderr,")
    nulls: dict[str, dict[str, float]] = {}
    if task is not None and has_one_right_choice(task):
        unread = trivial_choice_scores(task, limit) | (scores_without_question(task, model, limit) if baselines else {})
        nulls = dict.fromkeys(scores, unread)
    if task is not None and task.OUTPUT_TYPE == "generate_until":
        nulls = trivial_answer_scores(task, limit)
    near = {
        metric: within_noise(score, errors.get(metric, 0.0), nulls.get(metric, {})) for metric, score in scores.items()
    }
    return {
        "documents": row["sample_len"],
        "scores": scores,
        "standard_errors": errors,
        "null": nulls,
        "within_noise_of": near,
        "answers": {},
    }


def _fit_answers(task: Task, context_length: int) -> None:
    """Leave half of the context for the prompt: lm_eval's IFEval would write 1,280 tokens, whatever the model."""
    if task.OUTPUT_TYPE == "generate_until":
        asked = task.config.generation_kwargs.get("max_gen_toks", context_length)
        task.set_config("generation_kwargs", {"max_gen_toks": min(asked, context_length // 2)}, update=True)


def _check_choices(task: Task, model: LM, limit: int | None) -> None:
    """No choice may have more tokens than the context; a token has a byte at least, so few need to be counted."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return
    choices = (choice for document in islice(task.eval_docs, limit) for choice in task.doc_to_choice(document))
    for choice in choices:
        if len(choice.encode()) >= model.max_length <= len(model.tok_encode(choice)):
            raise UserError(
                f"task `{task.config.task}` has an answer of more than the {model.max_length} tokens of the model's "
                f"context (model.max_position_embeddings): leave the task out"
            )


def _numbers(row: dict[str, Any], mark: str) -> dict[str, float]:
    """A row's numbers by metric. lm_eval's keys are `METRIC,FILTER` and `METRIC_stderr,FILTER`."""
    found = {}
    for key, value in row.items():
        metric, _, filter_name = key.partition(mark)
        if filter_name and "_stderr" not in metric and isinstance(value, float):
            found[metric if filter_name == "none" else f"{metric} ({filter_name})"] = value
    return found


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
