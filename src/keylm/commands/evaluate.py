"""`keylm eval` outside the eval stage: lm_eval tasks on any model, and held-out instructions on external models."""

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
    json: Path | None,
    overrides: list[str] | None,
    folder: Path | None,
) -> None:
    """Score a run or an external model on lm_eval tasks; print the scores and, if `json` is given, write them.

    Raises:
        UserError: a task, its data or the model is not available.
    """
    scored = model if external_models.is_external(model) else open_run(model, overrides, folder)
    scores = lm_eval_tasks.run_and_print(scored, tasks, limit, data, baselines)
    if json:
        write_json(json, scores)


def score_instructions(model: Path, limit: int | None, json: Path | None) -> None:
    """Score an external model on the held-out instructions; print the scores and, if `json` is given, write them.

    Raises:
        UserError: the model cannot be loaded.
    """
    scores = external_models.measure_and_print(model, limit)
    if json:
        write_json(json, scores)
