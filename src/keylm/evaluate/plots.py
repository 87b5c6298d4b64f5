"""The report's plots: small SVG pictures that take the colour of the text around them, by day and by night."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

COLOURS = ("#3b82f6", "#f97316", "#94a3b8", "#10b981", "#a855f7", "#ef4444", "#eab308", "#06b6d4")
_INK = "#010203"
"""Stands for the page's text colour until the picture is written."""
_MAX_POINTS = 300
_STYLE = {
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


def curves(title: str, series: Mapping[str, Points], marker: str = "", over: str = "tokens") -> Markup:
    """Lines over tokens or something else, one for each name; long ones are thinned by averaging neighbours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    with rc_context(_STYLE):
        figure = Figure(figsize=(3.3, 2.3), layout="constrained")
        axes = figure.subplots()
        for (name, points), colour in zip(series.items(), _cycle(len(series)), strict=True):
            x, y = zip(*thinned(points), strict=True)
            axes.plot(x, y, label=name, color=colour, linewidth=1.2, marker=marker, markersize=3)
        axes.set_title(title)
        axes.set_xlabel(over)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(axis="y")
        axes.locator_params(nbins=5)
        if len(series) > 1:
            axes.legend(fontsize=8)
        return _svg(figure)


def bars(title: str, groups: Mapping[str, Mapping[str, float]], digits: int = 3) -> Markup:
    """Horizontal bars with their values: a group for each source, a bar for each name in it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = list(next(iter(groups.values())))
    height = 0.8 / len(names)
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.8, 0.7 + len(groups) * (0.12 + 0.2 * len(names))), layout="constrained")
        axes = figure.subplots()
        for index, (name, colour) in enumerate(zip(names, _cycle(len(names)), strict=True)):
            places = [row + (index - (len(names) - 1) / 2) * height for row in range(len(groups))]
            drawn = axes.barh(
                places, [group[name] for group in groups.values()], height * 0.86, label=name, color=colour
            )
            axes.bar_label(drawn, fmt=f"%.{digits}f", padding=3, fontsize=8)
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.margins(x=0.1)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        return _svg(figure)


def thinned(points: Points, max_points: int = _MAX_POINTS) -> Points:
    """At most `max_points` points: the means of neighbours."""
    size = -(-len(points) // max_points)
    if size <= 1:
        return points
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _svg(figure: Figure) -> Markup:
    """The figure as an `<svg>` element without a background, without metadata, and as wide as its place."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    return Markup(text[text.index("<svg") :].replace(_INK, "currentColor"))
