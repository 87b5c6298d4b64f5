"""Draw the plots of docs/keylm-nano.md: losses, bits per byte, and scores by type of instruction.

python docs/make_nano_pictures.py RUN SCORES, where SCORES is the file of `keylm eval RUN --tasks ifeval --json SCORES`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from keylm.evaluate.plots import COLORS, thinned

GROUPS = {
    "encyclopedia": "wikipedia",
    "textbooks": "openstax",
    "requests for real text": "wikipedia-requests",
    "the same under constraints": "wikipedia-chat",
    "generated instructions": "instructions",
}
"""Validation sources that are drawn, by their names in the plot."""


def main(run: Path, scores: Path) -> None:
    """Write both pictures beside this file."""
    folder = Path(__file__).parent
    figure, (loss, bits) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw_losses(loss, run)
    draw_bits_per_byte(bits, run)
    figure.savefig(folder / "keylm-nano-training.png", dpi=130)
    by_instruction = json.loads(scores.read_text())["lm_eval"]["ifeval"]["by_instruction"]
    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    draw_instructions(axes, by_instruction)
    figure.savefig(folder / "keylm-nano-instructions.png", dpi=130)


def draw_losses(axes: Axes, run: Path) -> None:
    """Training loss of both stages over their tokens, one after the other."""
    start = 0.0
    for stage, color in zip(("pretrain", "sft"), COLORS, strict=False):
        rows = [row for row in read_metrics(run / stage) if "loss" in row]
        smoothed = [
            (start + rows[index]["tokens"], fmean(row["loss"] for row in rows[max(0, index - 20) : index + 1]))
            for index in range(len(rows))
        ]
        x, y = zip(*thinned(smoothed), strict=True)
        axes.plot(x, y, color=color, label=stage, linewidth=1.2)
        start += rows[-1]["tokens"]
    decorate(axes, "training loss (nats per token, mean of 20 steps)")


def draw_bits_per_byte(axes: Axes, run: Path) -> None:
    """Bits per byte of held-out text of some sources, over both stages."""
    start = 0.0
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in GROUPS}
    for stage in ("pretrain", "sft"):
        rows = read_metrics(run / stage)
        for row in rows:
            for name, source in GROUPS.items():
                if source in row.get("validation", {}):
                    points[name].append((start + row["tokens"], row["validation"][source]))
        start += rows[-1]["tokens"]
    for (name, drawn), color in zip(points.items(), COLORS, strict=False):
        x, y = zip(*drawn, strict=True)
        axes.plot(x, y, color=color, label=name, linewidth=1.2, marker=".", markersize=4)
    decorate(axes, "bits per byte of held-out text")


def draw_instructions(axes: Axes, by_instruction: dict[str, dict[str, Any]]) -> None:
    """Share of the instructions of each type that are followed, beside repeating the request."""
    names = sorted(by_instruction, key=lambda name: by_instruction[name]["followed"] / by_instruction[name]["total"])
    shares = [100 * by_instruction[name]["followed"] / by_instruction[name]["total"] for name in names]
    echoed = [100 * by_instruction[name]["baselines"]["echoed prompt"] for name in names]
    labels = [f"{name.partition(':')[2]} ({by_instruction[name]['total']})" for name in names]
    axes.barh(labels, shares, color=COLORS[0])
    style = {"color": COLORS[1], "markersize": 9, "markeredgewidth": 2, "linestyle": "", "marker": "|"}
    axes.plot(echoed, range(len(names)), label="repeating the request", **style)
    axes.set_title("instructions followed (%) by type, with their number", loc="left", fontsize=9)
    axes.set_xlim(0, 100)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)


def decorate(axes: Axes, title: str) -> None:
    """Title, axes and legend of a plot over tokens."""
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("tokens", fontsize=8)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", alpha=0.2)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a stage's metrics.jsonl, in the order of their steps."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # A step that was repeated after an interruption stands twice: its last row counts.
    by_step = {(row["step"], "validation" in row): row for row in rows if "step" in row}
    return [by_step[key] for key in sorted(by_step)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
