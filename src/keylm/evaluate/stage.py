"""The eval stage: measure the weights of every training stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from keylm.common.console import console
from keylm.common.files import read_json, write_json
from keylm.common.hardware import keep_freed_memory
from keylm.run import Run
from keylm.stages import completed_training_stages

if TYPE_CHECKING:
    from keylm.data.prepare.token_store import TokenStore
    from keylm.model.transformer import KeyLM

_NUM_SAMPLES = 8
"""Held-out prompts that the report opens with."""


def run_eval(run: Run) -> dict[str, Any]:
    """Write one JSON file per measurement into `run.stage("eval")`; files that exist are kept.

    A measurement whose size is 0 in the recipe is left empty.

    Raises:
        UserError: An lm_eval task is unknown, or its data are missing.
    """
    keep_freed_memory()
    measurements: dict[str, Callable[[Run], dict[str, Any]]] = {
        # First, so that missing data of a task are reported before the long work.
        "lm_eval": _measure_lm_eval,
        "bits_per_byte": _measure_bits_per_byte,
        "sft_answers": _measure_sft_answers,
        "instruction_following": _measure_instruction_following,
        "typo_robustness": _measure_typo_robustness,
        "held_out_samples": _sample_held_out,
    }
    results = {}
    for name, measure in measurements.items():
        path = run.stage("eval") / f"{name}.json"
        # One file each, so that an evaluation that was stopped goes on with the measurement it was at.
        if not path.exists():
            write_json(path, measure(run))
        results[name] = read_json(path)
    accuracies = {stage: row["instruction_accuracy"] for stage, row in results["instruction_following"].items()}
    # Samples are for the report: the stage's metadata has numbers.
    del results["held_out_samples"]
    return {**results, "instruction_following": accuracies}


def _measure_lm_eval(run: Run) -> dict[str, Any]:
    """Scores of the last weights on the recipe's lm_eval tasks, by task."""
    config = run.recipe.eval
    if not config.tasks:
        return {}
    from keylm.evaluate.lm_eval_tasks import run_tasks

    return run_tasks(run, config.tasks, config.limit, config.data_folder, baselines=True)


def _measure_bits_per_byte(run: Run) -> dict[str, Any]:
    """Bits per byte of held-out text, by pretraining source."""
    num_bytes = run.recipe.eval.bits_per_byte_bytes
    if not num_bytes:
        return {}
    from keylm.common.console import progress
    from keylm.evaluate.bits_per_byte import compare_bits_per_byte, excerpt
    from keylm.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    excerpts = {name: excerpt(store, tokenizer, num_bytes) for name, store in _validation_stores(run).items()}
    models = _load_models(run)
    total = len(models) * sum(len(part.tokens) for part in excerpts.values())
    with progress("bits per byte", total, "tokens") as bar:
        return {
            name: compare_bits_per_byte(
                models, part, tokenizer.end_of_text, run.recipe.train.sequence_length, bar.advance
            )
            for name, part in excerpts.items()
        }


def _measure_sft_answers(run: Run) -> dict[str, Any]:
    """Bits per byte of held-out SFT answers, and of real answers that were edited to satisfy constraints."""
    num = run.recipe.eval.num_answers
    if not num:
        return {}
    from keylm.evaluate.sft_answers import answer_bits_per_byte, constrained_answer_bits_per_byte

    models = _load_models(run)
    base_model = models[completed_training_stages(run)[0]]
    return {
        "bits_per_byte": answer_bits_per_byte(run, models, num),
        "constrained": constrained_answer_bits_per_byte(run, base_model, num),
    }


def _measure_instruction_following(run: Run) -> dict[str, Any]:
    """Scores on the headline split by training stage; for the last one, also on the other splits."""
    config = run.recipe.eval
    if not config.instructions:
        return {}
    if not teaches_requests(run):
        console.print("  instruction following is not graded: no source of the recipe teaches it")
        return {}
    from keylm.evaluate.chat_models import run_chat_model
    from keylm.evaluate.instruction_following import held_out_splits, measure_instruction_following
    from keylm.instructions.constraints.catalog import CONSTRAINT_SETS

    # The largest set that any source trains on: a model that learned the basic one is not asked for the rest.
    sources = [*run.recipe.data.sources, *run.recipe.sft.sources]
    constraint_set = CONSTRAINT_SETS["all" if any(source.uses_all_constraints for source in sources) else "basic"]
    splits = held_out_splits(config.instructions, run.recipe.seed, constraint_set)
    headline, *_ = splits
    stages = completed_training_stages(run)
    results = {}
    for stage in stages:
        measured = splits if stage == stages[-1] else {headline: splits[headline]}
        scores = measure_instruction_following(run_chat_model(run, stage), measured, config.max_new_tokens)
        results[stage] = scores.pop(headline)
        if scores:
            results[stage]["splits"] = scores
    return results


def _measure_typo_robustness(run: Run) -> dict[str, Any]:
    """What typos cost by training stage: in bits per byte of the text after them, and in instruction accuracy."""
    config, seed = run.recipe.eval, run.recipe.seed
    num_requests = config.typo_instructions if teaches_requests(run) else 0
    if not config.typo_passages and not num_requests:
        return {}
    from keylm.evaluate.chat_models import run_chat_model
    from keylm.evaluate.typo_robustness import constrained_requests, measure_typo_robustness, sample_passages
    from keylm.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    # Generated text is left out: its sentences are so regular that typos before them matter little.
    generated = {source.name for source in run.recipe.data.sources if source.is_generated}
    stores = [store for name, store in _validation_stores(run).items() if name not in generated]
    return measure_typo_robustness(
        _load_models(run),
        partial(run_chat_model, run),
        tokenizer,
        sample_passages(stores, tokenizer, config.typo_passages, seed),
        constrained_requests(num_requests, seed),
        max_new_tokens=config.max_new_tokens,
        length=run.recipe.train.sequence_length,
        seed=seed,
    )


def _sample_held_out(run: Run) -> dict[str, Any]:
    """What the released weights make of held-out prompts, as they would in a chat, and the sampling settings."""
    from keylm.inference.generator import generator_of_run
    from keylm.inference.samples import sample_held_out

    stage = completed_training_stages(run)[-1]
    samples = sample_held_out(
        run, generator_of_run(run, stage), stage, _NUM_SAMPLES, run.recipe.eval.max_new_tokens, run.recipe.seed
    )
    export = run.recipe.export
    return {"temperature": export.temperature, "repetition_penalty": export.repetition_penalty, "samples": samples}


def teaches_requests(run: Run) -> bool:
    """Whether the model was trained on requests of which a program can check the answers, or may have been."""
    # What public chat data sets and imported weights have seen is not known.
    is_unknown = run.imported_from("pretrain") or any(source.type == "hub" for source in run.recipe.sft.sources)
    sources = [*run.recipe.data.sources, *run.recipe.sft.sources]
    return bool(is_unknown) or any(source.makes_examples for source in sources)


def _validation_stores(run: Run) -> dict[str, TokenStore]:
    """Held-out text by pretraining source; sources without any are left out."""
    from keylm.data.prepare.outputs import available_sources, open_store

    names = [source.name for source in available_sources(run, "pretrain")]
    stores = {name: open_store(run, "pretrain", name, "validation") for name in names}
    return {name: store for name, store in stores.items() if store.num_documents}


def _load_models(run: Run) -> dict[str, KeyLM]:
    """Final weights by training stage, on the GPU if there is one, in the precision that they were trained in."""
    from keylm.common.hardware import compute_dtype
    from keylm.inference.weights import load_weights

    models = {stage: load_weights(run, stage) for stage in completed_training_stages(run)}
    for model in models.values():
        model.compute_dtype = compute_dtype(run.recipe.train.compute_dtype, model.device)
    return models
