"""Compare our lm_eval adapter with lm_eval's own `hf` adapter: `python benchmarks/evaluation.py --data DIR [RUN]`.

The same weights in one process: likelihoods of the first 500 documents of HellaSwag and PIQA, and greedy answers to
generated requests. The two adapters alternate after a warm-up. Printed are the seconds of both and how the results
differ: the largest difference between two log-likelihoods, and the numbers of different choices and answers. Exit code
1 if a choice differs, or ours is less than 2 times (likelihoods) or 3 times (answers) as fast.
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
from keylm.evaluate.lm_eval_adapter import run_lm
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
    ours = run_lm(open_run(options.run))
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=BATCH_SIZE, add_bos_token=False)
    tasks = [task for part in load_tasks(TASKS, options.data) for task in part["tasks"].values()]
    passed = [_compare_likelihoods(task, theirs, ours, options) for task in tasks]
    passed.append(_compare_answers(theirs, ours, options))
    sys.exit(not all(passed))


def _compare_likelihoods(task: Any, theirs: Any, ours: Any, options: argparse.Namespace) -> bool:
    task.build_all_requests(limit=options.limit)
    requests = task.instances
    for model in (theirs, ours):
        model.loglikelihood(requests[:32], disable_tqdm=True)
    calls = [lambda model=model: model.loglikelihood(requests, disable_tqdm=True) for model in (theirs, ours)]
    (slow, fast), seconds = _alternate(calls, options.turns)
    difference = max(abs(first[0] - second[0]) for first, second in zip(slow, fast, strict=True))
    num_different = _num_different_choices(requests, slow, fast)
    note = f"at most {difference:.1e} nats apart, {num_different} different choices"
    return _report(task.config.task, len(requests), seconds, 2, note) and not num_different


def _compare_answers(theirs: Any, ours: Any, options: argparse.Namespace) -> bool:
    tasks = held_out(options.answers, 0, kinds=CONSTRAINT_SETS["all"])
    texts = [render(task.messages, add_generation_prompt=True) for task in tasks]
    settings = {"until": [], "do_sample": False, "max_gen_toks": options.tokens}
    requests = [Instance("generate_until", {}, (text, dict(settings)), number) for number, text in enumerate(texts)]
    for model in (theirs, ours):
        model.generate_until(requests[:4], disable_tqdm=True)
    calls = [lambda model=model: model.generate_until(requests, disable_tqdm=True) for model in (theirs, ours)]
    (slow, fast), seconds = _alternate(calls, options.turns)
    num_different = sum(first != second for first, second in zip(slow, fast, strict=True))
    return _report("answers", len(requests), seconds, 3, f"{num_different} different answers")


def _alternate(calls: list[Callable[[], Any]], num_turns: int) -> tuple[list[Any], list[list[float]]]:
    """The last result of each call, and the seconds of each by turn."""
    seconds: list[list[float]] = []
    for _ in range(num_turns):
        results, durations = [], []
        for call in calls:
            start = time.perf_counter()
            results.append(call())
            durations.append(time.perf_counter() - start)
        seconds.append(durations)
    return results, seconds


def _report(name: str, count: int, seconds: list[list[float]], target: float, note: str) -> bool:
    """Print a line; return whether the target speedup is reached."""
    slow, fast = (statistics.median(column) for column in zip(*seconds, strict=True))
    speedup = statistics.median(row[0] / row[1] for row in seconds)
    print(
        f"{name:<10} {count:>5}   hf {slow:6.1f} s   ours {fast:6.1f} s   {speedup:.2f} times as fast "
        f"(target: {target:g})   {note}",
        flush=True,
    )
    return speedup >= target


def _num_different_choices(requests: list[Any], first: Scores, second: Scores) -> int:
    """Documents for which the two adapters consider different choices the most likely."""
    rows = zip((request.doc_id for request in requests), first, second, strict=True)
    num_different = 0
    for _, document in groupby(rows, key=lambda row: row[0]):
        choices = list(document)
        best = [max(range(len(choices)), key=lambda index: choices[index][side][0]) for side in (1, 2)]
        num_different += best[0] != best[1]
    return num_different


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--data", type=Path, required=True, help="folder with the tasks' data files")
    parser.add_argument("--limit", type=int, default=500, help="documents per task")
    parser.add_argument("--answers", type=int, default=128, help="requests to answer")
    parser.add_argument("--tokens", type=int, default=256, help="token limit of an answer")
    parser.add_argument("--turns", type=int, default=3, help="timings of each adapter")
    return parser.parse_args()


if __name__ == "__main__":
    main()
