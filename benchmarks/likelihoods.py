"""Hold our likelihoods against lm_eval's own: `python benchmarks/likelihoods.py --data DIR [RUN] [--limit 500]`.

The same weights score the same documents through lm_eval's `hf` adapter and through ours, in one process. Printed are
the seconds of both after a warm-up, the largest difference between two log-likelihoods, and how many answers are chosen
otherwise. Exit code 1 if a choice differs or ours is less than twice as fast.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from keylm.evaluate.lm_tasks import load_model, load_tasks
from keylm.run import open_run

TASKS = ("hellaswag", "piqa")
Scores = list[tuple[float, bool]]


def main() -> None:
    """Print a line per task."""
    from lm_eval.models.huggingface import HFLM

    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500)
    options = parser.parse_args()
    tasks = [task for part in load_tasks(TASKS, options.data) for task in part["tasks"].values()]
    ours = load_model(open_run(options.run))
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=16, add_bos_token=False)
    holds = True
    for task in tasks:
        task.build_all_requests(limit=options.limit)
        for model in (theirs, ours):
            model.loglikelihood(task.instances[:32], disable_tqdm=True)
        (slow, slow_seconds), (fast, fast_seconds) = (_timed(model, task.instances) for model in (theirs, ours))
        far = max(abs(first[0] - second[0]) for first, second in zip(slow, fast, strict=True))
        others = _choices_that_differ(task.instances, slow, fast)
        print(
            f"{task.config.task:<10} {len(fast):>5} answers   hf {slow_seconds:6.1f} s   ours {fast_seconds:6.1f} s   "
            f"{slow_seconds / fast_seconds:.1f} times as fast   at most {far:.1e} nats apart   {others} other choices"
        )
        holds = holds and not others and slow_seconds >= 2 * fast_seconds
    sys.exit(not holds)


def _timed(model: Any, requests: list[Any]) -> tuple[Scores, float]:
    start = time.perf_counter()
    return model.loglikelihood(requests, disable_tqdm=True), time.perf_counter() - start


def _choices_that_differ(requests: list[Any], first: Scores, second: Scores) -> int:
    rows = zip((request.doc_id for request in requests), first, second, strict=True)
    documents = [list(row) for _, row in groupby(rows, key=lambda row: row[0])]
    return sum(_best(row, 1) != _best(row, 2) for row in documents)


def _best(row: list[Any], side: int) -> int:
    """Number of the likeliest answer."""
    return max(range(len(row)), key=lambda choice: row[choice][side][0])


if __name__ == "__main__":
    main()
