"""`keylm eval` outside of the eval stage: lm_eval tasks on any model, held-out instructions on external models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keylm.commands.score_tables import print_instruction_scores, print_reference_scores, print_task_scores
from keylm.common.errors import UserError
from keylm.common.files import write_json, write_json_lines
from keylm.run import Run


def score_tasks(
    model: Run | Path,
    tasks: list[str],
    *,
    limit: int | None = None,
    data: Path | None = None,
    baselines: bool = False,
    json: Path | None = None,
    samples: Path | None = None,
) -> None:
    """Score a model on lm_eval tasks, and print the scores next to baselines and published scores.

    Args:
        model: A run, or a GGUF file or transformers folder.
        tasks: lm_eval's names of the tasks.
        limit: Documents per task (default: all).
        data: Folder with the tasks' data files (default: they come from the hub).
        baselines: Also let the model choose without the question.
        json: File to write the scores to, with their provenance.
        samples: File to write every document to, with the model's answer and its scores, as JSON lines.

    Raises:
        UserError: A task, its data, the model, or the folder of a file to write is not available.
    """
    _check_folders(json, samples)
    from keylm.evaluate.lm_eval_tasks import run_tasks
    from keylm.evaluate.provenance import provenance_of

    kept: list[dict[str, Any]] = []
    scores = run_tasks(model, tasks, limit, data, baselines, kept.append if samples else None)
    print_task_scores(scores)
    print_reference_scores(scores)
    if json:
        write_json(json, {**provenance_of(model, tasks, data), "limit": limit, "lm_eval": scores})
    if samples:
        write_json_lines(samples, kept)


def score_instructions(model: Path, *, per_split: int | None = None, json: Path | None = None) -> None:
    """Score an external model on the held-out instructions with basic constraints, and print the scores.

    Args:
        model: A GGUF file or transformers folder.
        per_split: Requests of each split (default: as many as the eval stage asks by default).
        json: File to write the scores to, with their provenance.

    Raises:
        UserError: The model cannot be loaded, or has no chat template, or the folder of `json` does not exist.
    """
    _check_folders(json)
    from keylm.evaluate.chat_models import TransformersChatModel
    from keylm.evaluate.external_models import external_generator, load_external
    from keylm.evaluate.instruction_following import held_out_splits, measure_instruction_following
    from keylm.evaluate.provenance import provenance_of
    from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
    from keylm.recipe.eval import EvalConfig

    # An external model has no recipe. The defaults make its scores comparable with those of others.
    config = EvalConfig()
    loaded, tokenizer = load_external(model)
    generator = external_generator(model, loaded) if model.is_file() else None
    chat_model = TransformersChatModel(loaded, tokenizer, generator)
    splits = held_out_splits(config.instructions, 0, CONSTRAINT_SETS["basic"], per_split)
    scores = measure_instruction_following(chat_model, splits, config.max_new_tokens)
    print_instruction_scores(scores)
    if json:
        write_json(json, {**provenance_of(model, [], None), "instruction_following": scores})


def _check_folders(*files: Path | None) -> None:
    """Check that files can be written later, before the time to score a model is spent.

    Raises:
        UserError: The folder of a file does not exist.
    """
    for file in files:
        if file and not file.parent.is_dir():
            raise UserError(f"{file} cannot be written: create the folder {file.parent} first")
