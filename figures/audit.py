"""Whether the heads that were chosen often are the ones that look at the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.checks import finite_array, spread_or_none
from figures.paper import finish_axes, paper_figure, set_percent_ticks, write_note
from figures.records import FigurePath
from figures.theme import FAINT, GREY, INK, QUIET, VERMILION
from figures.writing import write_figure


def draw_head_audit(
    path: FigurePath,
    frequency: np.ndarray,
    iou: np.ndarray,
    *,
    fixed: Sequence[tuple[int, int]],
    skip_layers: int = 0,
    spearman: float,
    p_value: float,
    bar_names: Sequence[str],
    bar_values: Sequence[float],
    bar_sd: Sequence[float] | None = None,
    value_label: str = "mean IoU of the box",
) -> Figure:
    """Draw whether the heads that were chosen often are the ones that look at the target.

    Arguments are those of `viz.draw_head_audit`.
    """
    frequency = finite_array("frequency", frequency, ndim=2)
    iou = finite_array("iou", iou, shape=frequency.shape)
    heights = finite_array("bar_values", bar_values, length=len(bar_names))
    spread = spread_or_none(bar_sd, len(bar_names))
    figure, (left, right) = paper_figure(7.2, 2.9, width_ratios=(1.3, 1.0))
    _draw_audit_scatter(left, frequency, iou, fixed, skip_layers)
    x_label = "selection frequency" + (f" (hollow: layers below {skip_layers}, left out)" if skip_layers else "")
    finish_axes(left, f"Spearman {spearman:+.2f}, {_p_text(p_value)}", x_label, "mean IoU of the head's box")
    set_percent_ticks(left.xaxis, float(frequency.max()))
    _draw_audit_bars(right, bar_names, heights, spread)
    finish_axes(right, "Fixed heads compared", "", value_label)
    write_figure(figure, path)
    return figure


def _draw_audit_scatter(
    axes: Axes, frequency: np.ndarray, iou: np.ndarray, fixed: Sequence[tuple[int, int]], skip_layers: int
) -> None:
    """One point per head; the fixed ones stand out and are named, those of layers that are left out are hollow."""
    is_fixed = np.zeros(frequency.shape, bool)
    for layer, head in fixed:
        is_fixed[layer, head] = True
    left_out = ~is_fixed & (np.arange(len(frequency)) < skip_layers)[:, None]
    others = ~is_fixed & ~left_out
    axes.scatter(frequency[left_out], iou[left_out], s=9, facecolors="none", edgecolors=GREY, alpha=0.7, linewidths=0.6)
    axes.scatter(frequency[others], iou[others], s=9, color=GREY, alpha=0.55, linewidths=0)
    axes.scatter(
        frequency[is_fixed], iou[is_fixed], s=30, color=VERMILION, edgecolors="white", linewidths=0.6, zorder=3
    )
    span_x, span_y = max(float(frequency.max()), 1e-3), max(float(iou.max()), 1e-3)
    axes.set_xlim(-0.03 * span_x, 1.06 * span_x)
    axes.set_ylim(0, 1.12 * span_y)
    heads = sorted(fixed, key=lambda index: iou[index])
    heights = _pushed_apart([float(iou[index]) for index in heads], 0.085 * span_y)
    for (layer, head), height in zip(heads, heights):
        x, y = float(frequency[layer, head]), float(iou[layer, head])
        side = -1 if x > 0.5 * span_x else 1
        write_note(
            axes, x + side * 0.05 * span_x, height, f"L{layer}H{head}", ha="right" if side < 0 else "left", va="center"
        )
        axes.add_line(Line2D([x, x + side * 0.045 * span_x], [y, height], color=QUIET, linewidth=0.5))


def _pushed_apart(ascending: Sequence[float], distance: float) -> list[float]:
    """The same values, each at least `distance` above the one before, the whole kept centred."""
    placed: list[float] = []
    for value in ascending:
        placed.append(value if not placed else max(value, placed[-1] + distance))
    shift = float(np.mean(np.subtract(placed, ascending))) if placed else 0.0
    return [value - shift for value in placed]


def _draw_audit_bars(axes: Axes, names: Sequence[str], heights: np.ndarray, spread: np.ndarray | None) -> None:
    """One bar for each way of choosing heads, the first in colour."""
    places = np.arange(len(names))
    axes.bar(places, heights, width=0.66, color=[VERMILION, *([FAINT] * (len(names) - 1))])
    if spread is not None:
        shown = spread > 0
        axes.errorbar(
            places[shown], heights[shown], yerr=spread[shown], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5
        )
    ends = heights + (0 if spread is None else spread)
    for place, height, end in zip(places, heights, ends):
        write_note(axes, float(place), end, f"{height:.2f}", ha="center", va="bottom")
    axes.set_xticks(places, [name.replace(" ", "\n") for name in names])
    axes.set_ylim(0, max(float(ends.max()) * 1.12, 1e-3))


def _p_text(p_value: float) -> str:
    """A p-value as papers write it."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
