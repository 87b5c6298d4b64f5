"""`keylm eval` outside of the eval stage: lm_eval tasks on any model, held-out instructions on external models."""

from __future__ import annotations

from pathlib import Path

from keylm.common.files import write_json
from keylm.evaluate import external_models, lm_eval_tasks
from keylm.run import open_run


def score_tasks(
    model: Path,
    tasks: list[str],
    limit: int | None,
    data: Path | None,
    baselines: bool,
    json_path: Path | None,
    overrides: list[str] | None,
    folder: Path | None,
) -> None:
    """Score a run or an external model on lm_eval tasks and print the scores.

    Args:
        model: A recipe, a run folder, a GGUF file or a transformers folder.
        tasks: Names of lm_eval tasks.
        limit: Documents per task; all by default.
        data: Folder with the tasks' data files; from the hub by default.
        baselines: Also score trivial baselines, which choose without reading the question.
        json_path: File to write the scores to, with all that they depend on.
        overrides: Fields of the recipe to change, as `key.subkey=value`.
        folder: The run folder, if `model` is a recipe.

    Raises:
        UserError: a task, its data or the model is not available.
    """
    scored = model if external_models.is_external(model) else open_run(model, overrides, folder)
    scores = lm_eval_tasks.run_and_print(scored, tasks, limit, data, baselines)
    if json_path:
        write_json(json_path, scores)


def score_instructions(model: Path, limit: int | None, json_path: Path | None) -> None:
    """Score an external model on the held-out instructions and print the scores.

    Args:
        model: A GGUF file or a transformers folder.
        limit: Instructions per split; as many as a recipe's default otherwise.
        json_path: File to write the scores to, with all that they depend on.

    Raises:
        UserError: the model cannot be loaded, or has no chat template.
    """
    scores = external_models.measure_and_print(model, limit)
    if json_path:
        write_json(json_path, scores)
