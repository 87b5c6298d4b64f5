"""Draw keylm-nano.png: how the shipped model was trained, and which requests in people's words it follows.

python docs/make_nano_pictures.py SCORES RUN [RUN ...], where each run lengthens the one before it, and SCORES is what
`keylm eval RUN --tasks ifeval --json SCORES` wrote for the last one
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keylm.common.files import read_json
from keylm.evaluate.plots import thinned
from keylm.train.metrics import read_metrics

BLUE, ORANGE, GRAY = "#3b82f6", "#f97316", "#94a3b8"


def main(scores: Path, runs: list[Path]) -> None:
    """Draw the plots side by side, and write them beside this file."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    plot_losses(left, runs)
    plot_kinds(right, read_json(scores)["lm_eval"]["ifeval"]["by_instruction"])
    figure.savefig(Path(__file__).parent / "keylm-nano.png", dpi=100, metadata={"Software": None})


def plot_losses(axes: Axes, runs: list[Path]) -> None:
    """The loss of pretraining, one run behind the other, and of the last run's SFT: means of up to 100 steps."""
    trainings = [(run / "pretrain", None if number else "pretraining", BLUE) for number, run in enumerate(runs)]
    start = 0.0
    for folder, label, color in (*trainings, (runs[-1] / "sft", "SFT (loss on the answers)", ORANGE)):
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
        points = thinned([((start + row["tokens"]) / 1e6, row["loss"]) for row in rows], math.ceil(len(rows) / 100))
        axes.plot(*zip(*points, strict=True), label=label, color=color, linewidth=1.2)
        start += rows[-1]["tokens"]
    axes.set(title="Loss (nats per token)", xlabel="million tokens", ylim=(0, 5))
    axes.grid(axis="y", alpha=0.2)
    axes.legend(frameon=False)


def plot_kinds(axes: Axes, kinds: dict[str, dict]) -> None:
    """The share of requests whose constraint is followed, for each kind of constraint, beside that of an echo."""
    names = sorted(kinds, key=lambda name: kinds[name]["followed"] / kinds[name]["total"], reverse=True)
    labels = [f"{name.split(':')[1].replace('_', ' ')} ({kinds[name]['total']})" for name in names]
    model = [100 * kinds[name]["followed"] / kinds[name]["total"] for name in names]
    echo = [100 * kinds[name]["baselines"]["echoed prompt"] / kinds[name]["total"] for name in names]
    rows = range(len(names))
    axes.barh(rows, model, height=0.6, color=BLUE, label="KeyLM-Nano-Instruct")
    axes.plot(echo, rows, "|", color=GRAY, markersize=9, markeredgewidth=2.5, label="repeating the request")
    axes.set_yticks(rows, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(title="Constraints followed (%), and how many there are", xlim=(0, 102))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
