"""Hold a finished quickstart against what it has to reach: `python benchmarks/quickstart.py [runs/quickstart]`.

Time and memory are those that the stages kept; the seconds of `keylm --help` are measured here, as the median of seven
runs after one to warm up. Exit code 1 if anything is missed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Print a line per target: what was asked, what was reached."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    lines = [*_costs(results), *_quality(results), _help()]
    for name, reached, target, holds in lines:
        print(f"{'ok  ' if holds else 'MISS'} {name:<44} {reached:>12}   asked: {target}")
    sys.exit(not all(line[-1] for line in lines))


Line = tuple[str, str, str, bool]


def _costs(results: dict[str, Any]) -> list[Line]:
    stages = results["stages"].values()
    minutes = sum(stage["seconds"] for stage in stages) / 60
    gib = max(stage["peak_memory_bytes"] for stage in stages) / 2**30
    return [
        ("minutes, all stages", f"{minutes:.1f}", "at most 10", minutes <= 10),
        ("GiB of memory at most", f"{gib:.2f}", "at most 4", gib <= 4),
    ]


def _quality(results: dict[str, Any]) -> list[Line]:
    text = results["bits_per_byte"]["installed-docs"]
    scores = results["instruction_following"]["sft"]
    accuracy, baselines = scores["instruction_accuracy"], results["instruction_following"]["baselines"]
    best = max(row["instruction_accuracy"] for row in baselines.values())
    topic, xz = scores["topic_mentioned"], text["xz"]
    return [
        ("bits per byte of held-out text", f"{text['pretrain']:.3f}", f"under xz -9e: {xz:.3f}", text["pretrain"] < xz),
        ("bytes of that text", f"{text['bytes']:,}", "about 1,000,000", text["bytes"] >= 950_000),
        ("held-out instructions followed", f"{accuracy:.1%}", "at least 60%", accuracy >= 0.6),
        ("  over the best baseline", f"{accuracy - best:+.1%}", f"over {best:.1%}", accuracy > best),
        ("answers that name the topic", f"{topic:.1%}", "at least 50%", topic >= 0.5),
    ]


def _help() -> Line:
    seconds = statistics.median([_seconds_of_help() for _ in range(8)][1:])
    return ("seconds of keylm --help", f"{seconds:.2f}", "under 0.5", seconds < 0.5)


def _seconds_of_help() -> float:
    start = time.perf_counter()
    subprocess.run([Path(sys.executable).parent / "keylm", "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
