"""Hold our evaluation against lm_eval's own `hf` adapter: `python benchmarks/evaluation.py --data DIR [RUN]`.

The same weights, in one process: likelihoods of the first 500 documents of HellaSwag and PIQA, and greedy answers to
generated requests, through `hf` and through ours. Sides take turns, after a warm-up. Printed are the seconds of both,
and what differs: the largest difference between two log-likelihoods, the choices and the answers that are not the same.
Exit code 1 if a choice differs, or ours is not 2 times (likelihoods) or 3 times (answers) as fast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from keylm.data.cleaning.benchmark_items import load_tasks
from keylm.evaluate.lm_eval_tasks import load_model
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
from keylm.instructions.splits import held_out
from keylm.run import open_run
from keylm.tokenizer.chat_template import render

TASKS = ("hellaswag", "piqa")
BATCH_SIZE = 16
Scores = list[tuple[float, bool]]


def main() -> None:
    """Print a line per task."""
    options = _options()
    ours = load_model(open_run(options.run))
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=BATCH_SIZE, add_bos_token=False)
    holds = [_likelihoods(task, theirs, ours, options) for task in _tasks(options)]
    holds.append(_answers(theirs, ours, options))
    sys.exit(not all(holds))


def _likelihoods(task: Any, theirs: Any, ours: Any, options: argparse.Namespace) -> bool:
    task.build_all_requests(limit=options.limit)
    requests = task.instances
    for model in (theirs, ours):
        model.loglikelihood(requests[:32], disable_tqdm=True)
    sides = [lambda model=model: model.loglikelihood(requests, disable_tqdm=True) for model in (theirs, ours)]
    (slow, fast), seconds = _by_turns(sides, options.turns)
    far = max(abs(first[0] - second[0]) for first, second in zip(slow, fast, strict=True))
    others = _choices_that_differ(requests, slow, fast)
    said = f"at most {far:.1e} nats apart, {others} other choices"
    return _report(task.config.task, len(requests), seconds, 2, said) and not others


def _answers(theirs: Any, ours: Any, options: argparse.Namespace) -> bool:
    tasks = held_out(options.answers, 0, constraint_set=CONSTRAINT_SETS["all"])
    texts = [render(task.messages, add_generation_prompt=True) for task in tasks]
    settings = {"until": [], "do_sample": False, "max_gen_toks": options.tokens}
    requests = [Instance("generate_until", {}, (text, dict(settings)), number) for number, text in enumerate(texts)]
    for model in (theirs, ours):
        model.generate_until(requests[:4], disable_tqdm=True)
    sides = [lambda model=model: model.generate_until(requests, disable_tqdm=True) for model in (theirs, ours)]
    (slow, fast), seconds = _by_turns(sides, options.turns)
    others = sum(first != second for first, second in zip(slow, fast, strict=True))
    return _report("answers", len(requests), seconds, 3, f"{others} other answers")


def _by_turns(sides: list[Callable[[], Any]], turns: int) -> tuple[list[Any], list[list[float]]]:
    """What each side finds, and its seconds turn by turn."""
    found, seconds = [], []
    for _ in range(turns):
        row, took = [], []
        for side in sides:
            start = time.perf_counter()
            row.append(side())
            took.append(time.perf_counter() - start)
        found, seconds = row, [*seconds, took]
    return found, seconds


def _report(name: str, count: int, seconds: list[list[float]], asked: float, said: str) -> bool:
    """Print a line; whether the ratio that was asked for is reached."""
    slow, fast = (statistics.median(side) for side in zip(*seconds, strict=True))
    times = statistics.median(row[0] / row[1] for row in seconds)
    print(
        f"{name:<10} {count:>5}   hf {slow:6.1f} s   ours {fast:6.1f} s   {times:.2f} times as fast "
        f"(asked: {asked:g})   {said}",
        flush=True,
    )
    return times >= asked


def _choices_that_differ(requests: list[Any], first: Scores, second: Scores) -> int:
    rows = zip((request.doc_id for request in requests), first, second, strict=True)
    documents = [list(row) for _, row in groupby(rows, key=lambda row: row[0])]
    return sum(_best(row, 1) != _best(row, 2) for row in documents)


def _best(row: list[Any], side: int) -> int:
    """Number of the likeliest answer."""
    return max(range(len(row)), key=lambda choice: row[choice][side][0])


def _tasks(options: argparse.Namespace) -> list[Any]:
    return [task for part in load_tasks(TASKS, options.data) for task in part["tasks"].values()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, required=True, help="folder with the tasks' data files")
    parser.add_argument("--limit", type=int, default=500, help="documents per task")
    parser.add_argument("--answers", type=int, default=128, help="requests to answer")
    parser.add_argument("--tokens", type=int, default=256, help="most tokens of an answer")
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
