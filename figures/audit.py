"""Whether the heads that were chosen often are the ones that look at the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.label_places import place_labels
from figures.paper import (
    add_footer,
    count_text,
    empty_paper,
    finish_axes,
    letters,
    set_percent_ticks,
    write_note,
)
from figures.records import AuditBar, AuditPage, FigurePath
from figures.text import text_width, wrap
from figures.theme import FAINT, GREY, INK, PAPER_PT, QUIET, VERMILION
from figures.writing import write_figure

WIDTH = 7.6
BAR_HEIGHT = 0.27
LABEL_ROOM = 1.15
NUM_NAMED_BEST = 2


def draw_head_audit(path: FigurePath, shown: AuditPage, *, dpi: int) -> Figure:
    """Draw each head's selection frequency against its own IoU and, beside it, what the fixed heads are compared with.

    Args:
        path: Where to write; None draws only.
        shown: Points, bars and words.
        dpi: Pixels per inch.

    Returns:
        The figure.
    """
    controls = len(shown.control_bars)
    right_height = 1.5 + BAR_HEIGHT * len(shown.bars) + (1.0 + BAR_HEIGHT * controls if controls else 0.0)
    figure = empty_paper(WIDTH, max(3.6, right_height), dpi)
    ratios = [len(shown.bars) + 1.5, controls + 1.5] if controls else [1.0]
    places = figure.add_gridspec(len(ratios), 2, width_ratios=(1.1, 1.0), height_ratios=ratios)
    scatter = figure.add_subplot(places[:, 0])
    _draw_scatter(scatter, shown)
    _draw_bars(figure.add_subplot(places[0, 1]), shown.bars, "Fixed heads compared", shown.value_label)
    if controls:
        _draw_bars(figure.add_subplot(places[1, 1]), shown.control_bars, shown.control_title, shown.control_label)
    _write_words(figure, shown)
    _name_heads(figure, scatter, shown)
    write_figure(figure, path)
    return figure


def _write_words(figure: Figure, shown: AuditPage) -> None:
    """The verdict above; below what signs mean, how many rows and pictures there are, and what whiskers are."""
    verdict = "\n".join(wrap(shown.verdict, WIDTH - 0.3, PAPER_PT + 1, "bold", max_lines=6))
    if verdict:
        figure.suptitle(verdict, x=0.01, ha="left", fontsize=PAPER_PT + 1, fontweight="bold", **letters())
    counts = ", ".join(
        text for text in (count_text(shown.num_rows, "row"), count_text(shown.num_pictures, "picture")[4:]) if text
    )
    has_whiskers = any(bar.low is not None for bar in (*shown.bars, *shown.control_bars))
    others = shown.num_samples is not None and shown.num_samples != shown.num_rows
    notes = [
        counts,
        f"frequency over {count_text(shown.num_samples, 'sample')[4:]}" if others else "",
        f"whiskers: {shown.interval_label}" if has_whiskers else "",
    ]
    add_footer(figure, notes, _signs(shown))


def _draw_scatter(axes: Axes, shown: AuditPage) -> None:
    """One point per head; the fixed ones stand out, those of layers that are left out are hollow."""
    frequency, iou = shown.frequency, shown.iou
    is_fixed = np.zeros(frequency.shape, bool)
    for layer, head in shown.fixed:
        is_fixed[layer, head] = True
    left_out = ~is_fixed & (np.arange(len(frequency)) < shown.skip_layers)[:, None]
    others = ~is_fixed & ~left_out
    axes.scatter(frequency[left_out], iou[left_out], s=11, facecolors="none", edgecolors=QUIET, linewidths=0.6)
    axes.scatter(frequency[others], iou[others], s=11, color=QUIET, alpha=0.7, linewidths=0)
    style: dict[str, Any] = {"s": 34, "marker": "D", "color": VERMILION, "edgecolors": "white"}
    axes.scatter(frequency[is_fixed], iou[is_fixed], linewidths=0.6, zorder=3, **style)
    span_x, span_y = max(float(frequency.max()), 1e-3), max(float(iou.max()), 1e-3)
    axes.set_xlim(-0.04 * span_x, 1.08 * span_x)
    axes.set_ylim(0, 1.14 * span_y)
    finish_axes(axes, shown.correlation, "selection frequency", "mean IoU of the head's own box")
    set_percent_ticks(axes.xaxis, span_x)


def best_heads(iou: np.ndarray, count: int = NUM_NAMED_BEST) -> list[tuple[int, int]]:
    """(layer, head) of the heads with the highest values `[layers, heads]`; of equal ones the first."""
    order = np.argsort(-iou, axis=None, kind="stable")[:count]
    return [divmod(int(index), iou.shape[1]) for index in order]


def _name_heads(figure: Figure, axes: Axes, shown: AuditPage) -> None:
    """Write the names of the fixed and of the best heads beside their points, once the axes have their place."""
    figure.draw_without_rendering()
    best = best_heads(shown.iou)
    named = list(dict.fromkeys([*shown.fixed, *best]))
    to_inches = axes.transData.transform
    points = to_inches(np.stack([shown.frequency.ravel(), shown.iou.ravel()], axis=1)) / figure.dpi
    targets = [tuple(points[layer * shown.iou.shape[1] + head]) for layer, head in named]
    names = [f"L{layer}H{head}" for layer, head in named]
    extent = axes.get_window_extent()
    room = extent.x0 / figure.dpi, extent.y0 / figure.dpi, extent.x1 / figure.dpi, extent.y1 / figure.dpi + 0.1
    sizes = [(text_width(name, PAPER_PT - 1) + 0.04, (PAPER_PT - 1) * 1.25 / 72) for name in names]
    middles = place_labels(targets, sizes, points, room)
    for index, (name, target, middle) in enumerate(zip(names, targets, middles)):
        ring = "o" if named[index] in best else None
        _write_name(axes, name, target, middle, ring)


def _write_name(
    axes: Axes, name: str, target: tuple[float, float], middle: tuple[float, float], ring: str | None
) -> None:
    """Write a name at its place, all given in inches, with a line to its point, and a ring around that if wanted."""
    dpi = axes.figure.dpi
    x, y = (float(value) for value in axes.transData.inverted().transform((target[0] * dpi, target[1] * dpi)))
    offset = (middle[0] - target[0]) * 72, (middle[1] - target[1]) * 72
    line = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    style: dict[str, Any] = {"fontsize": PAPER_PT - 1, **letters()}
    note = axes.annotate(
        name, (x, y), offset, textcoords="offset points", ha="center", va="center", arrowprops=line, **style
    )
    note.set_in_layout(False)
    if ring:
        axes.plot([x], [y], ring, markersize=8.5, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.7)


def _draw_bars(axes: Axes, bars: Sequence[AuditBar], title: str, value_label: str) -> None:
    """One bar a line, the first in colour, with its interval; numbers stand in a column of their own."""
    rows = np.arange(len(bars))
    values = np.array([bar.value for bar in bars])
    colors = [VERMILION, *([FAINT] * (len(bars) - 1))]
    axes.barh(rows, values, height=0.64, color=colors, edgecolor=GREY, linewidth=0.4)
    for row, bar in enumerate(bars):
        if bar.low is not None and bar.high is not None:
            middle, reach = (bar.low + bar.high) / 2, (bar.high - bar.low) / 2
            axes.errorbar([middle], [row], xerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5)
    end = max(1e-3, *(max(bar.value, bar.value if bar.high is None else bar.high) for bar in bars))
    for row, bar in enumerate(bars):
        write_note(axes, 1.05 * end, row, _number(bar), ha="left", va="center")
    low_end = min(0.0, *(bar.value if bar.low is None else bar.low for bar in bars))
    axes.set_xlim(1.05 * low_end, 1.62 * end if any(bar.low is not None for bar in bars) else 1.25 * end)
    axes.set_xticks([tick for tick in axes.get_xticks() if low_end <= tick <= 1.02 * end])
    axes.set_yticks(rows, ["\n".join(wrap(bar.label, LABEL_ROOM, PAPER_PT - 1)) for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    finish_axes(axes, title, value_label, "", "x")
    axes.xaxis.label.set(x=0, horizontalalignment="left")  # the middle of the axes lies under the numbers
    axes.spines["bottom"].set_bounds(min(low_end, 0.0), 1.02 * end)


def _number(bar: AuditBar) -> str:
    """A bar's value and, where there is one, its interval."""
    if bar.low is None or bar.high is None:
        return f"{bar.value:.2f}"
    return f"{bar.value:.2f}  [{bar.low:.2f}, {bar.high:.2f}]"


def _signs(shown: AuditPage) -> list[Artist]:
    """What the points mean."""
    plain: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0.7}
    signs: list[Artist] = [Line2D([], [], marker="D", color=VERMILION, label="fixed heads", markersize=5, **plain)]
    signs.append(Line2D([], [], marker="o", color=QUIET, label="other heads", markersize=3.5, **plain))
    if shown.skip_layers:
        label = f"layers below {shown.skip_layers}, left out"
        signs.append(
            Line2D([], [], marker="o", color=QUIET, markerfacecolor="none", label=label, markersize=3.5, **plain)
        )
    ring = f"best {NUM_NAMED_BEST} by IoU"
    signs.append(Line2D([], [], marker="o", color=INK, markerfacecolor="none", label=ring, markersize=7, **plain))
    return signs


def correlation_text(spearman: float, p_value: float) -> str:
    """Rank correlation with its p-value as papers write them."""
    if math.isnan(spearman):
        return "Frequency against IoU\nno Spearman, since one is constant"
    return f"Frequency against IoU\nSpearman {spearman:+.2f}, " + (
        "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    )
