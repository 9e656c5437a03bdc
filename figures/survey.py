"""What a data set says of all heads: elbow, maps of layers by heads, bars and curves of frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from figures.checks import checked_ends, finite_array
from figures.paper import (
    add_footer,
    add_legend,
    count_text,
    finish_axes,
    paper_figure,
    series_style,
    set_percent_ticks,
    style_ticks,
    write_note,
)
from figures.records import Ends, FigurePath
from figures.text import font_families
from figures.theme import BLUE, FAINT, GREY, INK, MOST_NUMBERED_CELLS, PAPER_PT, VERMILION
from figures.writing import write_figure

SAME_SHARE = 1e-9
"""Shares of the same samples that differ by less are equal: what is left is rounding."""


def draw_elbow(
    path: FigurePath,
    mean_sums: np.ndarray,
    threshold: float,
    *,
    title: str,
    note: str,
    num_samples: int | None,
    dpi: int,
) -> Figure:
    """Draw the sorted mean attention sums of all heads, their chord, and the threshold at the elbow.

    Arguments are those of `viz.draw_elbow`.
    """
    ordered = np.sort(finite_array("mean_sums", mean_sums).ravel())
    ranks = np.arange(1, ordered.size + 1)
    kept = ordered >= threshold
    figure, axes = paper_figure(3.6, 2.6, dpi)
    axes.plot(ranks[[0, -1]], ordered[[0, -1]], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chord")
    axes.plot(ranks, ordered, color=GREY, linewidth=1.2)
    axes.fill_between(ranks, 0, ordered, where=kept, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(ranks[kept], ordered[kept], color=BLUE, linewidth=1.8, label=f"kept: {kept.sum()} of {kept.size} heads")
    axes.axhline(threshold, color=VERMILION, linewidth=1.0, label=f"threshold {threshold:.3g}")
    axes.set_xlim(1, max(ordered.size, 2))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    finish_axes(axes, title, "heads, by ascending sum", "mean attention sum over the image")
    add_footer(figure, [count_text(num_samples, "sample"), note])
    # Below the chord the curve leaves the upper left free, above it the lower right.
    is_above = ordered.mean() > ordered[[0, -1]].mean()
    add_legend(axes, "lower right" if is_above else "upper left")
    write_figure(figure, path)
    return figure


def draw_layer_head_map(
    path: FigurePath,
    values: np.ndarray,
    title: str,
    colorbar_label: str,
    *,
    marked: Sequence[tuple[int, int]],
    marked_as: str,
    percent: bool,
    num_samples: int | None,
    dpi: int,
) -> Figure:
    """Draw a value for each head as a map of layers (down) by heads (across).

    Arguments are those of `viz.draw_layer_head_map`.
    """
    values = finite_array("values", values, ndim=2)
    layers, heads = values.shape
    for layer, head in marked:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"Expected marked heads to lie in {layers} layers x {heads} heads, but got L{layer}H{head}."
            )
    map_height = min(max(min(3.1 * layers / heads, 0.45 * layers), 1.5), 6.0)
    figure, axes = paper_figure(3.9, map_height + 0.75, dpi)
    shown = axes.imshow(values, cmap="cividis", aspect="auto", interpolation="nearest", vmin=min(0.0, values.min()))
    for layer, head in marked:
        _frame_cell(axes, layer, head)
    if max(values.shape) <= MOST_NUMBERED_CELLS:
        _write_cells(axes, values, percent)
    names = ", ".join(f"L{layer}H{head}" for layer, head in marked)
    finish_axes(axes, f"{title}\n{marked_as} {names}" if names else title, "head", "layer", grid_axis=None)
    add_footer(figure, [count_text(num_samples, "sample")])
    axes.tick_params(length=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=9, min_n_ticks=1))
    bar = figure.colorbar(shown, ax=axes, pad=0.02, fraction=0.06, format=PercentFormatter(1, 0) if percent else None)
    bar.outline.set_visible(False)
    bar.set_label(colorbar_label, fontsize=PAPER_PT, color=INK, fontfamily=font_families())
    style_ticks(bar.ax)
    write_figure(figure, path)
    return figure


def draw_head_frequency_bars(
    path: FigurePath,
    names: Sequence[str],
    frequency: Sequence[float],
    ends: Ends | None,
    *,
    fixed: Sequence[str],
    num_samples: int | None,
    ends_label: str,
    title: str,
    dpi: int,
) -> Figure:
    """Draw how often each of the top heads was chosen, best first, with its interval.

    Arguments are those of `viz.draw_head_frequency_bars`.
    """
    values = finite_array("frequency", frequency, length=len(names))
    intervals = checked_ends(ends, (len(names),))
    tied = [bool((np.abs(values - value) < SAME_SHARE).sum() > 1) for value in values]
    figure, axes = paper_figure(3.8, 0.8 + 0.21 * len(names), dpi)
    colors = [BLUE if name in fixed else FAINT for name in names]
    axes.barh(np.arange(len(names)), values, height=0.72, color=colors, edgecolor=GREY, linewidth=0.4)
    _write_shares(axes, values, intervals, tied)
    axes.set_yticks(np.arange(len(names)), list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    finish_axes(axes, title, "samples that chose the head", "", "x")
    missing = [name for name in fixed if name not in names]
    notes = [
        count_text(num_samples, "sample"),
        f"whiskers: {ends_label}" if intervals is not None else "",
        "tie: chosen equally often" if any(tied) else "",
        f"fixed, but not among these: {', '.join(missing)}" if missing else "",
    ]
    add_footer(figure, notes, _bar_signs(colors))
    write_figure(figure, path)
    return figure


def _write_shares(
    axes: Axes, values: np.ndarray, intervals: tuple[np.ndarray, np.ndarray] | None, tied: Sequence[bool]
) -> None:
    """Draw whiskers, write each share behind its bar's end or whisker, and leave room for the words."""
    rows, ends = np.arange(len(values)), values
    if intervals is not None:
        low, high = intervals
        reach = (high - low) / 2
        style: dict[str, Any] = {"elinewidth": 0.9, "capsize": 2, "capthick": 0.9}
        axes.errorbar((low + high) / 2, rows, xerr=reach, fmt="none", ecolor=INK, **style)
        ends = np.maximum(values, high)
    for row, (value, end) in enumerate(zip(values, ends)):
        write_note(axes, end, row, f" {value:.1%}{'  tie' if tied[row] else ''}", ha="left", va="center")
    axes.set_xlim(0, max(float(ends.max()) * (1.32 if any(tied) else 1.2), 1e-3))
    set_percent_ticks(axes.xaxis, float(ends.max()))


def _bar_signs(colors: Sequence[str]) -> list[Artist]:
    """Say which bars are which."""
    meanings = {BLUE: "fixed heads, the ones used", FAINT: "other heads"}
    return [Patch(color=color, label=meaning) for color, meaning in meanings.items() if color in colors]


def draw_frequency_vs_samples(
    path: FigurePath,
    sample_counts: Sequence[int],
    frequency: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray] | None,
    names: Sequence[str],
    *,
    band_label: str,
    title: str,
    dpi: int,
) -> Figure:
    """Draw how the selection frequency of each head settles as samples are added.

    Arguments are those of `viz.draw_frequency_vs_samples`.
    """
    counts = finite_array("sample_counts", sample_counts, ndim=1)
    shape = (len(names), counts.size)
    curves = finite_array("frequency", frequency, shape=shape)
    bands = checked_ends(ends, shape)
    figure, axes = paper_figure(3.6, 2.6, dpi)
    for index, name in enumerate(names):
        color, marker = series_style(index)
        axes.plot(counts, curves[index], color=color, marker=marker, markersize=3.5, linewidth=1.3, label=name)
        if bands is not None:
            axes.fill_between(counts, bands[0][index], bands[1][index], color=color, alpha=0.15, linewidth=0)
    if counts[0] > 0 and counts[-1] / counts[0] >= 16:
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
    top = float(curves.max() if bands is None else max(curves.max(), bands[1].max()))
    axes.set_ylim(0, min(1.02, top * 1.15 + 0.02))
    set_percent_ticks(axes.yaxis, float(curves.max()))
    finish_axes(axes, title, "number of samples", "samples that chose the head")
    add_footer(figure, ["" if bands is None else f"bands: {band_label}"])
    add_legend(axes, "best", columns=1 if len(names) <= 4 else 2)
    write_figure(figure, path)
    return figure


def _frame_cell(axes: Axes, layer: int, head: int) -> None:
    """Frame one cell of a map of layers by heads."""
    axes.add_patch(
        Rectangle(
            (head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=VERMILION, linewidth=1.3, clip_on=False, zorder=3
        )
    )


def _write_cells(axes: Axes, values: np.ndarray, percent: bool) -> None:
    """Write each value into its cell, light on dark and dark on light."""
    low, high = min(0.0, float(values.min())), float(values.max())
    for layer, head in np.ndindex(*values.shape):
        value = float(values[layer, head])
        dark = value < low + 0.55 * (high - low)
        text = f"{value:.0%}" if percent else f"{value:.2f}"
        write_note(
            axes, head, layer, text, ha="center", va="center", color="white" if dark else INK, fontsize=PAPER_PT - 1.5
        )
