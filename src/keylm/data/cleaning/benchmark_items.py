"""The items of public benchmarks: lm_eval's tasks with their documents, from the hub or from a folder.

If a folder is given, nothing else is read:

    DIR/NAME.jsonl.gz    the documents that task NAME is scored on, with the columns of its original data set
    DIR/nltk_data/       nltk's `punkt_tab`, for `ifeval`
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from keylm.common.errors import UserError

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict

_NEEDS_PUNKT = ("ifeval", "leaderboard_ifeval")


@dataclass(frozen=True)
class ScoredItem:
    """A document that a task is scored on: the prompts, and the choices or answers."""

    task: str
    contexts: list[str]
    continuations: list[str]


def scored_items(names: Sequence[str], data: Path | None = None) -> Iterator[ScoredItem]:
    """Every document that these tasks are scored on, formatted by lm_eval.

    Raises:
        UserError: a task is unknown, or its data is not available.
    """
    for loaded in load_tasks(names, data):
        for name, task in loaded["tasks"].items():
            for document in task.eval_docs:
                yield ScoredItem(name, *_item_texts(task, document))


def load_tasks(names: Sequence[str], data: Path | None = None) -> list[TaskDict]:
    """lm_eval's task or group of tasks of each name, with its data.

    Raises:
        UserError: a task is unknown, or its data is not available.
    """
    if data is not None:
        _check_folder(names, data)
    manager = _task_manager()
    for name in names:
        if name not in manager.all_tasks:
            raise UserError(f"lm_eval has no task `{name}`: `lm_eval ls tasks` lists what it has")
    return [_from_hub(manager, name) if data is None else _from_folder(manager, name, data) for name in names]


@cache
def _task_manager() -> TaskManager:
    """lm_eval's index of its tasks, which takes seconds to build. Its warnings only concern models that it loads."""
    import datasets
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def _check_folder(names: Sequence[str], data: Path) -> None:
    """Refuse a folder that lacks a file before lm_eval looks for it on the hub."""
    import nltk

    for name in names:
        if not (data / f"{name}.jsonl.gz").exists():
            raise UserError(
                f"task `{name}` needs its data, and {data} has no {name}.jsonl.gz: "
                f"put it there, or leave --data out where there is a network"
            )
    # First, so that another copy on the machine does not decide what is scored.
    nltk.data.path.insert(0, str((data / "nltk_data").resolve()))
    for name in set(names).intersection(_NEEDS_PUNKT):
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as error:
            raise UserError(
                f"task `{name}` needs nltk's punkt_tab, and {data} has no nltk_data/tokenizers/punkt_tab: put it there"
            ) from error


def _from_hub(manager: TaskManager, name: str) -> TaskDict:
    try:
        return manager.load([name])
    except OSError as error:
        raise UserError(
            f"task `{name}` needs its data, and the hub could not be reached: "
            f"name a folder that has {name}.jsonl.gz with --data"
        ) from error


def _from_folder(manager: TaskManager, name: str, data: Path) -> TaskDict:
    """lm_eval's own task, with the documents of a file: a task configuration that includes the original one."""
    config = {
        "include": str(manager.task_index[name].yaml_path),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str((data / f"{name}.jsonl.gz").resolve())}},
        # The file has one split; the original task may name others, and lm_eval would look for them.
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return manager.load([str(path)])


def _item_texts(task: Task, document: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Contexts and continuations of a document. WinoGrande, for example, has a context for each choice."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return _strings(task.doc_to_text(document)), _strings(task.doc_to_target(document))
    choices = _strings(task.doc_to_choice(document))
    if task.multiple_input:
        return choices, _strings(task.doc_to_target(document))
    return _strings(task.doc_to_text(document)), choices


def _strings(value: Any) -> list[str]:
    """The strings of a list, or of one value; a number is the index of the right choice, and is left out."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
