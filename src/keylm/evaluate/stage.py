"""Evaluation: what a trained run has learned, in numbers that mean something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keylm.common.files import read_json, write_json
from keylm.run import Run
from keylm.stages import completed_training_stages

if TYPE_CHECKING:
    from keylm.data.prepare.token_store import TokenStore
    from keylm.model.transformer import KeyLM
    from keylm.recipe import Recipe


def run_eval(run: Run) -> dict[str, Any]:
    """Measure the weights that every training left into `run.stage("eval")`; a file that is there is kept.

    `tasks.json`, `bits_per_byte.json`, `answers.json`, `instructions.json` and `typos.json` are written in this order,
    so that a task whose data are missing is named before the long work.

    Raises:
        UserError: an lm_eval task is unknown, or its data are not there.
    """
    folder = run.stage("eval")
    tasks = _once(folder / "tasks.json", lambda: _tasks(run))
    bits_per_byte = _once(folder / "bits_per_byte.json", lambda: _bits_per_byte(run))
    answers = _once(folder / "answers.json", lambda: _answers(run))
    instructions = _once(folder / "instructions.json", lambda: _instructions(run))
    typos = _once(folder / "typos.json", lambda: _typos(run))
    followed = {stage: scores["followed"] for stage, scores in instructions.items()}
    return {
        "tasks": tasks,
        "bits_per_byte": bits_per_byte,
        "answers": answers,
        "instructions_followed": followed,
        "typos": typos,
    }


def _once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file says, or else what `measure` finds, which the file says from now on."""
    if not path.exists():
        write_json(path, measure())
    return read_json(path)


def _tasks(run: Run) -> dict[str, Any]:
    if not run.recipe.eval.tasks:
        return {}
    from keylm.evaluate.lm_eval_tasks import run_tasks

    settings = run.recipe.eval
    data = Path(settings.data) if settings.data else None
    return run_tasks(run, settings.tasks, settings.limit, data, baselines=True)


def _bits_per_byte(run: Run) -> dict[str, Any]:
    """Bits per byte of each pretraining source's held-out text; sources without any are left out."""
    if not run.recipe.eval.bits_per_byte_bytes:
        return {}
    from keylm.common.console import progress
    from keylm.evaluate.bits_per_byte import compare, excerpt
    from keylm.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    parts = {
        name: excerpt(store, tokenizer, run.recipe.eval.bits_per_byte_bytes)
        for name, store in _held_out_text(run).items()
    }
    models = _models(run)
    length = run.recipe.train.sequence_length
    total = len(models) * sum(len(part.tokens) for part in parts.values())
    with progress("bits per byte", total, "tokens") as bar:
        return {name: compare(models, part, tokenizer.end_of_text, length, bar.advance) for name, part in parts.items()}


def _answers(run: Run) -> dict[str, Any]:
    """Held-out answers of the tuning data: how well they are predicted, and what constraints make of real ones."""
    if not run.recipe.eval.num_answers:
        return {}
    from keylm.evaluate.sft_answers import made, predicted

    models = _models(run)
    plain, num = models[completed_training_stages(run)[0]], run.recipe.eval.num_answers
    return {"predicted": predicted(run, models, num), "made": made(run, plain, num)}


def _instructions(run: Run) -> dict[str, Any]:
    """Held-out generated instructions, followed after every training; of the last weights, the other splits too."""
    if not run.recipe.eval.instructions:
        return {}
    from keylm.evaluate.instructions import measure, splits
    from keylm.evaluate.run_model import run_chat_model
    from keylm.instructions.constraints.catalog import CONSTRAINT_SETS

    settings, kinds = run.recipe.eval, CONSTRAINT_SETS[_trained_kinds(run.recipe)]
    tasks = splits(settings.instructions, run.recipe.seed, kinds)
    headline, *others = tasks
    found = {}
    for stage in completed_training_stages(run):
        speaker = run_chat_model(run, stage)
        found[stage] = measure(speaker, tasks[headline], settings.max_new_tokens)
        if stage == completed_training_stages(run)[-1]:
            found[stage]["splits"] = {name: measure(speaker, tasks[name], settings.max_new_tokens) for name in others}
    return found


def _trained_kinds(recipe: Recipe) -> str:
    """The largest set of kinds that any source asks for."""
    sources = [*recipe.data.sources, *recipe.sft.sources]
    return "all" if any(source.uses_all_constraints for source in sources) else "basic"


def _typos(run: Run) -> dict[str, Any]:
    """What typos cost: in bits per byte of the text that follows them, and in instructions followed."""
    settings, seed = run.recipe.eval, run.recipe.seed
    if not settings.typo_passages and not settings.typo_instructions:
        return {}
    from keylm.evaluate import typo_robustness
    from keylm.evaluate.run_model import run_chat_model
    from keylm.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    made = {source.name for source in run.recipe.data.sources if source.is_generated}
    stores = [store for name, store in _held_out_text(run).items() if name not in made]
    passages = typo_robustness.passages(stores, tokenizer, settings.typo_passages, seed)
    tasks = typo_robustness.requests(settings.typo_instructions, seed)
    length = run.recipe.train.sequence_length
    speak = partial(run_chat_model, run)
    return typo_robustness.measure(
        _models(run), speak, tokenizer, passages, tasks, settings.max_new_tokens, length, seed
    )


def _held_out_text(run: Run) -> dict[str, TokenStore]:
    from keylm.data.prepare.outputs import available_sources, open_store

    names = [source.name for source in available_sources(run, "pretrain")]
    stores = {name: open_store(run, "pretrain", name, "validation") for name in names}
    return {name: store for name, store in stores.items() if store.num_documents}


def _models(run: Run) -> dict[str, KeyLM]:
    """The run's final weights by the stage that made them, in the precision that they were trained in."""
    from keylm.common.hardware import compute_dtype
    from keylm.model.transformer import load_model

    found = {}
    for stage in completed_training_stages(run):
        found[stage] = load_model(run.recipe.model, run.weights(stage))
        found[stage].compute_dtype = compute_dtype(run.recipe.train.compute_dtype)
    return found
