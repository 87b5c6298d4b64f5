"""Let a run answer, and keep what the checkers accept: `python benchmarks/rejection_sampling.py RUN OUT.jsonl`.

Reinforcement learning with the checkers as reward, in its simplest form (rejection sampling fine-tuning, Yuan et al.
2023; RAFT, Dong et al. 2023): each request of the training split gets several answers, drawn at a temperature; of
requests that the model sometimes fails, the accepted answers are written, once each, as conversations to tune on. An
answer is accepted if it ended by itself, follows every constraint and names its topic. docs/log.md tells the outcome.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from keylm import chat
from keylm.data.instructions import KIND_SETS, Task
from keylm.data.instructions.requests import topical
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import said
from keylm.evaluate import llama_writer
from keylm.evaluate.answers import Answer
from keylm.run import open_run
from keylm.tokenizer import Tokenizer


def main() -> None:
    """Write what is accepted, and say how much that is."""
    options = _options()
    run = open_run(options.run)
    tasks = list(_tasks(options.requests, options.kinds))
    tokenizer, writer = Tokenizer.load(run.stage("tokenizer")), llama_writer.of_run(run, run.trained[-1])
    prompts = [chat.encode(tokenizer, task.messages, add_generation_prompt=True)[0] for task in tasks]
    drawn = [writer.write(prompts, options.tokens, temperature=options.temperature) for _ in range(options.samples)]
    kept, accepted = [], 0
    for task, answers in zip(tasks, zip(*drawn, strict=True), strict=True):
        good = {answer.text for answer in answers if _is_accepted(task, answer)}
        accepted += sum(answer.text in good for answer in answers)
        if any(answer.text not in good for answer in answers):
            kept += [{"messages": [*task.messages, said(text)]} for text in sorted(good)]
    options.out.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    print(f"{accepted / len(tasks) / options.samples:.1%} of the answers are accepted, {len(kept):,} are kept")


def _tasks(num: int, kinds: str) -> Iterator[Task]:
    """Requests about a topic under one or two constraints, in words and phrasings of training."""
    for index in range(num):
        sampler = Sampler(Random(f"rejection:{index}"))
        yield topical(sampler, sampler.rng.sample(KIND_SETS[kinds], sampler.choice((1, 1, 2)))).task


def _is_accepted(task: Task, answer: Answer) -> bool:
    return answer.ended and all(task.followed(answer.text)) and task.names_topic(answer.text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=4, help="answers to each request")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=160, help="most tokens of an answer")
    parser.add_argument("--kinds", choices=list(KIND_SETS), default="all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
