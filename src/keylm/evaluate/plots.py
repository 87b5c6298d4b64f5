"""Plots of the report: inline SVG whose text and axes follow the page's light or dark color scheme."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

COLORS = ("#3b82f6", "#f97316", "#94a3b8", "#10b981", "#a855f7", "#ef4444", "#eab308", "#06b6d4")
STEP_CURVES = {
    "loss": "loss (nats per token)",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
}
"""Titles of the curves of a training, by the column of `metrics.jsonl`."""
_INK = "#010203"
"""Placeholder for the page's text color (`currentColor`), which matplotlib does not know."""
# About as many as a small plot is wide; more would only make the page larger.
_MAX_POINTS = 300
_STYLE = {
    # Text stays text, in the page's font and color; with a fixed salt, the ids in a plot are the same in every run.
    "svg.fonttype": "none",
    "svg.hashsalt": "keylm",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
}


def curves(
    title: str,
    series: Mapping[str, Points],
    marker: str = "",
    x_label: str = "tokens",
    phase_ends: Sequence[float] = (),
) -> Markup:
    """A line plot.

    Args:
        title: Title of the plot.
        series: Points (x, y) by the name of their line; long lines are thinned. A line without points keeps its color.
        marker: matplotlib's marker of the points (default: none).
        x_label: Label of the x axis.
        phase_ends: Where to draw a vertical line: a phase of training ends there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    with rc_context(_STYLE):
        figure = Figure(figsize=(3.3, 2.3), layout="constrained")
        axes = figure.subplots()
        for (name, points), color in zip(series.items(), cycle(COLORS), strict=False):
            if points:
                x, y = zip(*thinned(points), strict=True)
                axes.plot(x, y, label=name, color=color, linewidth=1.2, marker=marker, markersize=3)
        for end in phase_ends:
            axes.axvline(end, color=_INK, linewidth=1, linestyle=":", alpha=0.7)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(axis="y")
        axes.locator_params(nbins=5)
        if len(series) > 1:
            axes.legend(fontsize=8)
        return _svg(figure)


def bars(title: str, groups: Mapping[str, Mapping[str, float]], digits: int = 3) -> Markup:
    """A horizontal bar plot with its values.

    Args:
        title: Title of the plot.
        groups: Values by group and bar; every group has the same bars.
        digits: Digits behind the decimal point.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(next(iter(groups.values())))
    height = 0.8 / len(names)
    with rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 0.9 + len(groups) * (0.12 + 0.2 * len(names))), layout="constrained")
        axes = figure.subplots()
        for index, (name, color) in enumerate(zip(names, cycle(COLORS), strict=False)):
            # The bars of a group lie around the group's row, from top to bottom.
            centers = [row + (index - (len(names) - 1) / 2) * height for row in range(len(groups))]
            values = [group[name] for group in groups.values()]
            bar = axes.barh(centers, values, height * 0.86, label=name, color=color)
            axes.bar_label(bar, fmt=f"%.{digits}f", padding=3, fontsize=8)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.margins(x=0.1)
        figure.legend(fontsize=8, loc="outside lower center", ncols=len(names))
        return _svg(figure)


def scores_by_source(rows: Sequence[Mapping[str, Any]], key: str, title: str) -> tuple[str, dict[str, Points]]:
    """Scores of held-out documents over tokens, and the plot's title: by source, or of too many sources their mean.

    Args:
        rows: Rows of `metrics.jsonl`, at least one, each of which has `key`.
        key: Column of scores by source.
        title: Title of the plot.
    """
    names = list(rows[-1][key])
    if len(names) <= len(COLORS):
        return title, {name: [(row["tokens"], row[key][name]) for row in rows] for name in names}
    # Lines in repeated colors could not be told apart.
    mean = [(row["tokens"], fmean(row[key].values())) for row in rows]
    return f"{title}, mean of {len(names)} sources", {"mean": mean}


def thinned(points: Points, max_points: int = _MAX_POINTS) -> Points:
    """At most `max_points` points, each the mean of its neighbors."""
    size = -(-len(points) // max_points)
    if size <= 1:
        return points
    chunks = [points[first : first + size] for first in range(0, len(points), size)]
    return [(fmean(x for x, _ in chunk), fmean(y for _, y in chunk)) for chunk in chunks]


def _svg(figure: Figure) -> Markup:
    """The figure as an `<svg>` element without background and metadata."""
    file = io.StringIO()
    # Without metadata the same numbers give the same bytes.
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    text = file.getvalue()
    return Markup(text[text.index("<svg") :].replace(_INK, "currentColor"))
