"""Figures for people: where heads look in one picture, and what a data set says of all heads.

Every function draws on a figure of its own, without pyplot, a display or a change of matplotlib's global settings, so
that several threads may draw at once. Each returns its figure and, where `path` is not None, writes it there.

Layers and heads are 0-based. Boxes are half-open `xyxy` in pixels of the original image. Distances on a page are in
inches from its top left corner, sizes of letters in points.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Optional, Union

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import BboxImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

from bbox import box_iou, smooth_maps
from lab.records import Grid, HeadChoice, HeadScore, Localization
from lab.storage.files import atomic_write

logger = logging.getLogger(__name__)

FigurePath = Optional[Union[str, Path]]
Box = tuple[float, float, float, float]

INK, QUIET, FAINT = "#1A1A1A", "#5F6368", "#D0D3D6"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#9AA0A6"
PREDICTED_COLOR = "#00D4FF"
TRUTH_COLOR = "#FFFFFF"
HEAT = "inferno"

TITLE_PT, LABEL_PT, SMALL_PT = 12.0, 9.0, 8.0
MARGIN, GAP = 0.14, 0.12
MAX_BODY_WH = (12.5, 7.6)
PANEL_AREA = 5.4
MIN_ROOM = 1.0
MIN_PAGE_WIDTH = 3.4
FOOTER_LINE, KEY_GAP, CAPTION_GAP = 0.2, 0.25, 0.04
NO_BOX = "no box"

MOST_NUMBERED_CELLS = 10  # across or down; in more of them numbers would touch
PAPER_PT = 8.0
PAPER_DPI = 200

# Sought among the installed fonts, for queries in scripts that DejaVu Sans (which comes with matplotlib) lacks.
MORE_FONTS = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Nirmala UI",
    "Arial Unicode MS",
)
MISSING_CHARACTER = "\u25a1"
DETAIL_SEPARATOR = " · "

_pdf_settings_lock = threading.Lock()


# ------------------------------------------------------------------------------------------------ one picture


def draw_top_heads(
    path: FigurePath,
    image: Image.Image,
    maps: np.ndarray,
    grid: Grid,
    choice: HeadChoice,
    localization: Localization,
    query: str,
    *,
    sigma: float = 1.0,
    truncate: float = 4.0,
    truth_xyxy: Box | None = None,
    model_name: str | None = None,
    dpi: int = 120,
) -> Figure:
    """Draw the picture with its box, each chosen head's map over it, and the combined map with the mask's outline.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        image: The original picture after EXIF rotation.
        maps: `[K, rows, cols]` raw attention of the chosen heads, in the order of `choice.heads`.
        grid: Where the maps lie in the picture.
        choice: The chosen heads with their scores.
        localization: Combined map, mask and box.
        query: What was asked.
        sigma: Smoothing of the single maps, in cells, the same as for the localization.
        truncate: Where the smoothing kernel ends, in sigmas.
        truth_xyxy: Ground-truth box, if known.
        model_name: Named in the line below the query.
        dpi: Pixels per inch of the page.

    Returns:
        The figure.

    Raises:
        ValueError: If the maps fit neither grid nor choice, are not finite, or the picture has another size than the
            localization's.
    """
    _check_top_heads(image, maps, grid, choice, localization)
    smooth = smooth_maps(maps, sigma=sigma, truncate=truncate)
    panels = [(_head_label(score), map_) for score, map_ in zip(choice.heads, smooth)]
    panels.append((_combined_label(len(smooth), sigma), localization.combined_map))
    hero_label = _prediction_label(localization.box_xyxy, truth_xyxy)

    body = _plan_body(image.width / image.height, [hero_label, *(label for label, _ in panels)])
    subtitle = _subtitle(model_name, image.size, choice, localization.box_xyxy)
    page = _start_page(body.size_wh, _quoted(query), subtitle, _key_items(truth_xyxy), dpi)

    hero_pixels = _fit(image, _pixel_size(page, body.hero))
    place = _draw_panel(page, body.hero, hero_label, body.hero_rows, hero_pixels, image.size)
    _draw_box(page, place, "predicted", localization.box_xyxy)
    _draw_box(page, place, "truth", truth_xyxy)
    faded = _faded(_fit(hero_pixels, _pixel_size(page, body.slots[0])))
    for slot, (label, map_) in zip(body.slots, panels):
        pixels = _overlay(faded, map_, grid, image.size)
        place = _draw_panel(page, slot, label, body.label_rows, pixels, image.size)
    _draw_box(page, place, "predicted", localization.box_xyxy, weight=0.7)
    _draw_cell_outline(page, place, localization.cell_mask, grid)
    return _finish_page(page, path)


@dataclass(frozen=True)
class GalleryEntry:
    """One picture of a gallery.

    Attributes:
        image: The original picture after EXIF rotation.
        query: What was asked.
        box_xyxy: Predicted box, if there is one.
        truth_xyxy: Ground-truth box, if known.
        map: `[rows, cols]` attention to draw over the picture; needs `grid`.
        grid: Where the map lies in the picture.
    """

    image: Image.Image
    query: str
    box_xyxy: Box | None = None
    truth_xyxy: Box | None = None
    map: np.ndarray | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        """Reject maps that do not fit a grid."""
        if self.map is None:
            return
        if self.grid is None:
            raise ValueError(
                f"Expected a gallery entry with a map to have a grid, but got none for {self.query!r}. "
                "Give the grid that the preprocessing made."
            )
        _check_map_shape(self.map[None], self.grid, f"the map of gallery entry {self.query!r}")


def draw_gallery(
    path: FigurePath,
    entries: Sequence[GalleryEntry],
    *,
    title: str | None = None,
    width: float = 10.0,
    row_height: float = 2.1,
    dpi: int = 120,
) -> Figure:
    """Draw many pictures in rows, each under its query, with predicted box, ground truth, IoU and, if given, its map.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        entries: The pictures, in reading order.
        title: Line above all.
        width: Width of the pictures together, in inches.
        row_height: Height of a row of pictures, in inches, about: rows are stretched to the full width.
        dpi: Pixels per inch of the page.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no entries.
    """
    if not entries:
        raise ValueError("Expected at least one entry for a gallery, but got none. Give it some results.")
    rows = _gallery_rows([_slot_aspect(entry.image) for entry in entries], width, row_height)
    captions = [_gallery_caption(entry, room) for row in rows for entry, room in _row_rooms(entries, row)]
    tops, body_height = _gallery_tops(rows, captions)
    truth_known = next((entry.truth_xyxy for entry in entries if entry.truth_xyxy is not None), None)
    maps_shown = any(entry.map is not None for entry in entries)
    items = _key_items(truth_known, mask=False, heat=maps_shown)
    page = _start_page((width, body_height), title or "", "", items, dpi)
    for row, top in zip(rows, tops):
        left = 0.0
        for index in row.indices:
            room = row.height * _slot_aspect(entries[index].image)
            _draw_gallery_entry(page, entries[index], captions[index], _Slot(left, top, room, row.height))
            left += room + GAP
    return _finish_page(page, path)


def show(figure: Figure) -> None:
    """Open a window with the figure and wait until it is closed; without a display say so in the log, and go on.

    Args:
        figure: A figure that one of this module's functions returned.
    """
    from matplotlib import pyplot

    if pyplot.get_backend().lower() in {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}:
        logger.warning("Cannot show a figure: no display was found. Set save_fig=true and open the file.")
        return
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    # pyplot shows only figures that it made: one of the same size gets the finished pixels.
    window = pyplot.figure(figsize=figure.get_size_inches(), dpi=figure.dpi)
    window.figimage(pixels)
    pyplot.show()
    pyplot.close(window)


# ------------------------------------------------------------------------------------------------ a data set


def draw_elbow(
    path: FigurePath, mean_sums: np.ndarray, threshold: float, *, title: str = "Criterion 1: attention sum"
) -> Figure:
    """Draw the sorted mean attention sums of all heads, their chord, and the threshold at the elbow.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        mean_sums: `[layers, heads]` (or any shape) mean attention sum of each head, in [0, 1].
        threshold: Heads with at least this sum are kept.
        title: Title of the figure.

    Returns:
        The figure.
    """
    ordered = np.sort(_finite("mean_sums", mean_sums).ravel())
    ranks = np.arange(1, ordered.size + 1)
    kept = ordered >= threshold
    figure, (axes,) = _paper_figure(3.6, 2.6)
    axes.plot(ranks[[0, -1]], ordered[[0, -1]], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chord")
    axes.plot(ranks, ordered, color=GREY, linewidth=1.2)
    axes.fill_between(ranks, 0, ordered, where=kept, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(ranks[kept], ordered[kept], color=BLUE, linewidth=1.8, label=f"kept: {kept.sum()} of {kept.size} heads")
    axes.axhline(threshold, color=VERMILION, linewidth=1.0, label=f"threshold {threshold:.3g}")
    axes.set_xlim(1, max(ordered.size, 2))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _finish(axes, title, "heads, by ascending sum", "mean attention sum over the image")
    # Below the chord the curve leaves the upper left free, above it the lower right.
    is_above = ordered.mean() > ordered[[0, -1]].mean()
    _legend(axes, "lower right" if is_above else "upper left")
    _write(figure, path)
    return figure


def draw_layer_head_map(
    path: FigurePath,
    values: np.ndarray,
    title: str,
    colorbar_label: str,
    *,
    marked: Sequence[tuple[int, int]] = (),
    percent: bool = False,
) -> Figure:
    """Draw a value for each head as a map of layers (down) by heads (across).

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        values: `[layers, heads]`, such as mean attention sums or selection frequencies.
        title: Title of the figure.
        colorbar_label: What the values are.
        marked: (layer, head) of heads to frame and name.
        percent: Whether values are shares in [0, 1] to be shown as percentages.

    Returns:
        The figure.

    Raises:
        ValueError: If values is not two-dimensional and finite, or a marked head lies outside.
    """
    values = _finite("values", values, ndim=2)
    layers, heads = values.shape
    for layer, head in marked:
        if not (0 <= layer < layers and 0 <= head < heads):
            raise ValueError(
                f"Expected marked heads to lie in {layers} layers x {heads} heads, but got L{layer}H{head}."
            )
    map_height = min(max(min(3.1 * layers / heads, 0.45 * layers), 1.2), 6.0)
    figure, (axes,) = _paper_figure(3.9, map_height + 0.75)
    shown = axes.imshow(values, cmap="cividis", aspect="auto", interpolation="nearest", vmin=min(0.0, values.min()))
    for layer, head in marked:
        _frame_cell(axes, layer, head)
    if max(values.shape) <= MOST_NUMBERED_CELLS:
        _write_cells(axes, values, percent)
    names = ", ".join(f"L{layer}H{head}" for layer, head in marked)
    _finish(axes, f"{title}\nframed: {names}" if names else title, "head", "layer", grid_axis=None)
    axes.tick_params(length=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=9, min_n_ticks=1))
    bar = figure.colorbar(shown, ax=axes, pad=0.02, fraction=0.06, format=PercentFormatter(1, 0) if percent else None)
    bar.outline.set_visible(False)
    bar.set_label(colorbar_label, fontsize=PAPER_PT, color=INK, fontfamily=_font_families())
    _style_ticks(bar.ax)
    _write(figure, path)
    return figure


def draw_head_frequency_bars(
    path: FigurePath,
    names: Sequence[str],
    frequency: Sequence[float],
    sd: Sequence[float] | None = None,
    *,
    num_fixed: int = 3,
    title: str = "Selection frequency of the top heads",
) -> Figure:
    """Draw how often each of the top heads was chosen, best first, with its spread over trials.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        names: Names of the heads, such as L14H24, best first.
        frequency: Share of the samples that chose each, in [0, 1].
        sd: Standard deviation of each over the trials; None draws no error bars.
        num_fixed: The first so many are shown as the heads that were fixed.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: If the lengths differ.
    """
    values = _finite("frequency", frequency, length=len(names))
    spread = _spread_or_none(sd, len(names))
    rows = np.arange(len(names))
    figure, (axes,) = _paper_figure(3.6, 0.75 + 0.21 * len(names))
    axes.barh(rows[:num_fixed], values[:num_fixed], height=0.72, color=BLUE, label="fixed heads")
    if len(names) > num_fixed:
        axes.barh(rows[num_fixed:], values[num_fixed:], height=0.72, color=FAINT, label="others")
        _legend(axes, "lower right")
    if spread is not None:
        axes.errorbar(values, rows, xerr=spread, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2, capthick=0.9)
    ends = values + (0 if spread is None else spread)
    for row, (value, end) in enumerate(zip(values, ends)):
        _note(axes, end, row, f" {value:.0%}", ha="left", va="center")
    axes.set_yticks(rows, list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max(float(ends.max()) * 1.16, 1e-3))
    _percent_ticks(axes.xaxis, float(ends.max()))
    _finish(axes, title, "samples that chose the head" + ("" if spread is None else " (± sd over trials)"), "", "x")
    _write(figure, path)
    return figure


def draw_frequency_vs_samples(
    path: FigurePath,
    sample_counts: Sequence[int],
    frequency: np.ndarray,
    sd: np.ndarray | None,
    names: Sequence[str],
    *,
    title: str = "Selection frequency against samples",
) -> Figure:
    """Draw how the selection frequency of each head settles as samples are added.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        sample_counts: `[n]` numbers of samples, ascending.
        frequency: `[K, n]` share of the samples that chose each head, in [0, 1].
        sd: `[K, n]` standard deviation over trials; None draws no bands.
        names: K names of heads.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes differ.
    """
    counts = _finite("sample_counts", sample_counts, ndim=1)
    shape = (len(names), counts.size)
    curves = _finite("frequency", frequency, shape=shape)
    bands = None if sd is None else _finite("sd", sd, shape=shape)
    figure, (axes,) = _paper_figure(3.6, 2.6)
    for index, name in enumerate(names):
        color, marker = _series_style(index)
        axes.plot(counts, curves[index], color=color, marker=marker, markersize=3.5, linewidth=1.3, label=name)
        if bands is not None:
            low, high = np.clip(curves[index] - bands[index], 0, 1), np.clip(curves[index] + bands[index], 0, 1)
            axes.fill_between(counts, low, high, color=color, alpha=0.15, linewidth=0)
    if counts[0] > 0 and counts[-1] / counts[0] >= 16:
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
    axes.set_ylim(0, min(1.02, float(curves.max()) * 1.3 + 0.02))
    _percent_ticks(axes.yaxis, float(curves.max()))
    _finish(axes, title, "number of samples", "samples that chose the head")
    _legend(axes, "best", columns=1 if len(names) <= 4 else 2)
    _write(figure, path)
    return figure


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

    Left, each head's selection frequency against its own IoU with the ground truth; right, the fixed heads together
    against heads chosen per image, random heads, all heads and the whole image.

    Args:
        path: Where to write, `.png` or `.pdf`; None draws only.
        frequency: `[layers, heads]` selection frequency, in [0, 1].
        iou: `[layers, heads]` mean IoU of each head's own box with the ground truth.
        fixed: (layer, head) of the fixed heads.
        skip_layers: First layers that the rules leave out; their heads are hollow, since no sample could choose them.
        spearman: Rank correlation of the two, over the other heads.
        p_value: Its p-value.
        bar_names: Names of the compared ways, such as fixed, per-image, random, all heads, whole image.
        bar_values: Score of each.
        bar_sd: Standard deviation of each (0 where there is none); None draws no error bars.
        value_label: What the bars measure.

    Returns:
        The figure.

    Raises:
        ValueError: If shapes or lengths differ.
    """
    frequency = _finite("frequency", frequency, ndim=2)
    iou = _finite("iou", iou, shape=frequency.shape)
    heights = _finite("bar_values", bar_values, length=len(bar_names))
    spread = _spread_or_none(bar_sd, len(bar_names))
    figure, (left, right) = _paper_figure(7.2, 2.9, width_ratios=(1.3, 1.0))
    _draw_audit_scatter(left, frequency, iou, fixed, skip_layers)
    x_label = "selection frequency" + (f" (hollow: layers below {skip_layers}, left out)" if skip_layers else "")
    _finish(left, f"Spearman {spearman:+.2f}, {_p_text(p_value)}", x_label, "mean IoU of the head's box")
    _percent_ticks(left.xaxis, float(frequency.max()))
    _draw_audit_bars(right, bar_names, heights, spread)
    _finish(right, "Fixed heads compared", "", value_label)
    _write(figure, path)
    return figure


# ------------------------------------------------------------------------------------- checks of what was given


def _check_top_heads(
    image: Image.Image, maps: np.ndarray, grid: Grid, choice: HeadChoice, localization: Localization
) -> None:
    """Refuse maps, heads and picture that do not belong together."""
    _check_map_shape(maps, grid, "maps")
    if not choice.heads or len(maps) != len(choice.heads):
        raise ValueError(
            f"Expected one map for each chosen head, at least one, but got {len(maps)} maps for "
            f"{len(choice.heads)} heads. Give the maps of choice.heads, in their order."
        )
    if tuple(image.size) != tuple(localization.image_size_wh):
        raise ValueError(
            f"Expected the picture to be {_by(localization.image_size_wh)} px as the localization says, "
            f"but got {_by(image.size)} px. Load it with its EXIF rotation applied."
        )


def _check_map_shape(maps: np.ndarray, grid: Grid, what: str) -> None:
    """Refuse maps that are not `[K, rows, cols]` of the grid, or not finite."""
    if maps.ndim != 3 or maps.shape[1:] != grid.shape:
        raise ValueError(
            f"Expected {what} to fit the grid's {_by(grid.shape)} cells, but got the shape {list(maps.shape[-2:])}."
            if maps.ndim == 3
            else f"Expected {what} to have the shape [K, rows, cols], but got {list(maps.shape)}."
        )
    if not np.isfinite(maps).all():
        raise ValueError(f"Expected {what} to be finite, but got NaN or inf. Collect the attention again.")


def _finite(
    name: str,
    values: object,
    *,
    ndim: int | None = None,
    shape: tuple[int, ...] | None = None,
    length: int | None = None,
) -> np.ndarray:
    """The values as a float array of the given form; refuses empty ones, other forms, NaN and inf."""
    array = np.asarray(values, dtype=float)
    if length is not None:
        shape = (length,)
    if shape is not None and array.shape != shape:
        raise ValueError(f"Expected {name} to have the shape {list(shape)}, but got {list(array.shape)}.")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"Expected {name} to have {ndim} dimensions, but got the shape {list(array.shape)}.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Expected {name} to hold finite numbers, at least one, but got NaN, inf or nothing.")
    return array


def _spread_or_none(sd: Sequence[float] | None, length: int) -> np.ndarray | None:
    """Checked standard deviations, or None."""
    return None if sd is None else _finite("sd", sd, length=length)


def _by(pair: Sequence[int]) -> str:
    """Two numbers as people write a size."""
    return f"{pair[0]} x {pair[1]}"


# --------------------------------------------------------------------------------------------- words on the page


@dataclass(frozen=True)
class _Label:
    """What stands above a picture: a name in bold, then details."""

    name: str
    details: tuple[str, ...]

    def rows_needed(self, room: float) -> int:
        """Lines that it takes within `room` inches: one, or two, or one for the name and each detail."""
        name_width = _text_width(f"{self.name}  ", LABEL_PT, "bold")
        details_width = _text_width(DETAIL_SEPARATOR.join(self.details), SMALL_PT)
        if name_width + details_width <= room:
            return 1
        return 2 if details_width <= room else 1 + len(self.details)

    def lines(self, rows: int) -> list[tuple[str, str]]:
        """The (bold part, plain part) of each line when it may take so many."""
        details = DETAIL_SEPARATOR.join(self.details)
        if rows == 1:
            return [(self.name, details)]
        if rows == 2:
            return [(self.name, ""), ("", details)]
        return [(self.name, ""), *(("", detail) for detail in self.details)]


def _head_label(score: HeadScore) -> _Label:
    """Name, entropy and sum of a head."""
    entropy = "∞" if math.isinf(score.spatial_entropy) else f"{score.spatial_entropy:.3f}"
    return _Label(score.name, (f"entropy {entropy}", f"sum {score.attn_sum:.3f}"))


def _combined_label(num_heads: int, sigma: float) -> _Label:
    """What the last panel shows."""
    return _Label("Combined", (f"{num_heads} head{'s' if num_heads > 1 else ''}", f"sigma {sigma:g}"))


def _prediction_label(box_xyxy: Box | None, truth_xyxy: Box | None) -> _Label:
    """What the first panel shows."""
    if box_xyxy is None:
        return _Label("Picture", (NO_BOX,))
    return _Label("Picture", () if truth_xyxy is None else (f"IoU {box_iou(box_xyxy, truth_xyxy):.2f}",))


def _subtitle(model_name: str | None, image_size_wh: tuple[int, int], choice: HeadChoice, box_xyxy: Box | None) -> str:
    """The quiet line below the query."""
    source = {"automatic": "heads chosen on this picture", "manual": "heads named by hand", "heads_file": "fixed heads"}
    box = NO_BOX if box_xyxy is None else "box " + ", ".join(f"{edge:.0f}" for edge in box_xyxy)
    parts = [model_name, f"{image_size_wh[0]} × {image_size_wh[1]} px", source[choice.source], box]
    return " · ".join(part for part in parts if part)


def _quoted(query: str) -> str:
    """The query between quotation marks."""
    return f"“{query.strip()}”"


def _gallery_caption(entry: GalleryEntry, room: float) -> list[str]:
    """Lines above a picture of a gallery: the query in at most three lines, and the IoU."""
    lines = _wrap(entry.query.strip(), room, LABEL_PT, "bold", max_lines=3)
    if entry.box_xyxy is None:
        return [*lines, NO_BOX]
    if entry.truth_xyxy is not None:
        return [*lines, f"IoU {box_iou(entry.box_xyxy, entry.truth_xyxy):.2f}"]
    return lines


def _wrap(text: str, room: float, size: float, weight: str = "normal", *, max_lines: int = 3) -> list[str]:
    """Break text into lines of at most `room` inches, at spaces where there are any; what is too much ends in "…"."""
    words = _printable(text).split()
    lines = [""]
    while words and len(lines) <= max_lines:
        joined = f"{lines[-1]} {words[0]}".strip()
        if _text_width(joined, size, weight) <= room:
            lines[-1] = joined
            words.pop(0)
        elif lines[-1]:
            lines.append("")
        else:
            head = _longest_fitting(words[0], room, size, weight)
            lines[-1], words[0] = words[0][:head], words[0][head:]
            lines.append("")
    if words or len(lines) > max_lines and lines[max_lines]:
        lines = lines[:max_lines]
        cut = _longest_fitting(lines[-1], room - _text_width("…", size, weight), size, weight)
        lines[-1] = lines[-1][:cut].rstrip() + "…"
    return [line for line in lines if line]


def _longest_fitting(text: str, room: float, size: float, weight: str) -> int:
    """How many of the first characters fit into `room` inches; at least one."""
    widths = np.cumsum([_advance(character, weight) for character in text]) * size / 72
    return max(1, int(np.searchsorted(widths, room, side="right")))


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line of text in inches."""
    return sum(_advance(character, weight) for character in text) * size / 72


@functools.lru_cache(maxsize=4096)
def _advance(character: str, weight: str) -> float:
    """Width of a character in units of the letter size."""
    path = next((path for path in _font_paths(weight) if ord(character) in _characters_of(path)), None)
    if path is None:
        return 1.0
    font = font_manager.get_font(path)
    font.set_size(100, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


def _printable(text: str) -> str:
    """The text on one line, with a box in the place of each character that no installed font can draw.

    Replacing them beforehand keeps matplotlib from warning of each; `warnings` filters are shared by all threads.
    """
    known = [_characters_of(path) for path in _font_paths("normal")]
    line = " ".join(text.split())
    shown = (character for character in line if character.isprintable() or ord(character) == 0x200D)
    return "".join(
        character if any(ord(character) in characters for characters in known) else MISSING_CHARACTER
        for character in shown
    )


@functools.lru_cache(maxsize=1)
def _font_families() -> tuple[str, ...]:
    """DejaVu Sans and those of `MORE_FONTS` that are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in MORE_FONTS if name in installed))


@functools.lru_cache(maxsize=4)
def _font_paths(weight: str) -> tuple[str, ...]:
    """Files of the font families."""
    return tuple(str(font_manager.findfont(FontProperties(family=name, weight=weight))) for name in _font_families())


@functools.lru_cache(maxsize=64)
def _characters_of(font_path: str) -> frozenset[int]:
    """Code points that a font can draw."""
    return frozenset(font_manager.get_font(font_path).get_charmap())


# ------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class _Slot:
    """A rectangle of the page's body, in inches from the body's top left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class _Body:
    """Where the pictures of a page lie: the hero is the first one, larger than the others where that saves paper.

    Attributes:
        size_wh: Width and height of all, labels included.
        hero: The first picture.
        hero_rows: Lines of the label above it.
        slots: The others, in reading order.
        label_rows: Lines of the labels above the others.
    """

    size_wh: tuple[float, float]
    hero: _Slot
    hero_rows: int
    slots: tuple[_Slot, ...]
    label_rows: int


def _plan_body(aspect: float, labels: Sequence[_Label]) -> _Body:
    """The arrangement with the best mix of large pictures, little empty paper and a page shaped like a screen.

    Args:
        aspect: Width over height of the picture.
        labels: The hero's label, then those of the others.
    """
    count = len(labels) - 1
    ways = [(_even_body, across) for across in range(1, count + 2)]
    # A hero beside a single row, or above a single column, would be as large as the others, but out of line.
    ways += [(_hero_left_body, across) for across in range(1, count)]
    ways += [(_hero_above_body, across) for across in range(2, count + 1)]
    return max((_shrunk(planner, aspect, labels, across) for planner, across in ways), key=_merit)


def _merit(body: _Body) -> float:
    """Share of the paper used well, times size of the small pictures, less for pages far from 1.7 : 1.

    A hero of more than four times the others' area is no more use to the eye.
    """
    width, height = body.size_wh
    small = body.slots[0].width * body.slots[0].height
    covered = (min(body.hero.width * body.hero.height, 4.3 * small) + small * len(body.slots)) / (width * height)
    oversize = max(1.0, width / MAX_BODY_WH[0], height / MAX_BODY_WH[1])
    return (
        oversize**-6 * covered**3 * (small / PANEL_AREA) ** 0.7 * math.exp(-0.3 * abs(math.log(width / height / 1.7)))
    )


def _shrunk(planner: Callable[..., _Body], aspect: float, labels: Sequence[_Label], across: int) -> _Body:
    """The planner's arrangement with pictures of `PANEL_AREA`, or as much smaller as the largest page demands."""
    height = math.sqrt(PANEL_AREA / aspect)
    for _ in range(6):
        body = planner(aspect, labels, across, height)
        shrink = min(MAX_BODY_WH[0] / body.size_wh[0], MAX_BODY_WH[1] / body.size_wh[1])
        if shrink >= 1:
            break
        height *= shrink
    return body


def _even_body(aspect: float, labels: Sequence[_Label], across: int, height: float) -> _Body:
    """All pictures of one size, `across` in a row."""
    (hero, *slots), rows, size_wh = _even_slots(aspect, labels, across, height, 0.0, 0.0)
    return _Body(size_wh, hero, rows, tuple(slots), rows)


def _hero_left_body(aspect: float, labels: Sequence[_Label], across: int, height: float) -> _Body:
    """The hero at the left, as tall as all rows of the others together."""
    _, _, block_wh = _even_slots(aspect, labels[1:], across, height, 0.0, 0.0)
    hero_rows = labels[0].rows_needed(max(block_wh[1] * aspect, MIN_ROOM))
    hero_height = block_wh[1] - hero_rows * _line_height(LABEL_PT)
    hero = _Slot(0.0, hero_rows * _line_height(LABEL_PT), hero_height * aspect, hero_height)
    left = max(hero.width, MIN_ROOM) + GAP
    slots, rows, _ = _even_slots(aspect, labels[1:], across, height, left, 0.0)
    return _Body((left + block_wh[0], block_wh[1]), hero, hero_rows, slots, rows)


def _hero_above_body(aspect: float, labels: Sequence[_Label], across: int, height: float) -> _Body:
    """The hero above, as wide as a row of the others."""
    _, _, block_wh = _even_slots(aspect, labels[1:], across, height, 0.0, 0.0)
    hero_rows = labels[0].rows_needed(block_wh[0])
    hero = _Slot(0.0, hero_rows * _line_height(LABEL_PT), block_wh[0], block_wh[0] / aspect)
    top = hero.top + hero.height + GAP
    slots, rows, _ = _even_slots(aspect, labels[1:], across, height, 0.0, top)
    return _Body((block_wh[0], top + block_wh[1]), hero, hero_rows, slots, rows)


def _even_slots(
    aspect: float, labels: Sequence[_Label], across: int, height: float, left: float, top: float
) -> tuple[tuple[_Slot, ...], int, tuple[float, float]]:
    """Slots for equal pictures under their labels, the rows of a label, and the size of all together."""
    width = height * aspect
    room = max(width, MIN_ROOM)
    rows = max(label.rows_needed(room) for label in labels)
    label_height = rows * _line_height(LABEL_PT)
    step = height + label_height + GAP
    slots = tuple(
        _Slot(left + (index % across) * (room + GAP), top + label_height + (index // across) * step, width, height)
        for index in range(len(labels))
    )
    return slots, rows, (across * (room + GAP) - GAP, math.ceil(len(labels) / across) * step - GAP)


@dataclass(frozen=True)
class _GalleryRow:
    """Pictures of one row of a gallery, all of one height."""

    indices: tuple[int, ...]
    height: float


def _slot_aspect(image: Image.Image) -> float:
    """Width over height of the place of a picture in a gallery; extremes get a place that captions fit over."""
    return min(max(image.width / image.height, 0.55), 3.0)


def _gallery_rows(aspects: Sequence[float], width: float, row_height: float) -> list[_GalleryRow]:
    """Break the pictures into rows that, stretched to the full width, are all nearly `row_height` tall."""
    costs, starts = [0.0], [0]
    for end in range(1, len(aspects) + 1):
        options = [
            (costs[start] + math.log(_row_stretch(aspects[start:end], width) / row_height) ** 2, start)
            for start in range(end)
            if _row_stretch(aspects[start:end], width) > 0
        ]
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    rows: list[_GalleryRow] = []
    end = len(aspects)
    while end > 0:
        height = min(_row_stretch(aspects[starts[end] : end], width), 1.25 * row_height)
        rows.insert(0, _GalleryRow(tuple(range(starts[end], end)), height))
        end = starts[end]
    return rows


def _row_stretch(aspects: Sequence[float], width: float) -> float:
    """Height at which pictures of these aspects fill a row; at most 0 where the gaps alone do."""
    return (width - GAP * (len(aspects) - 1)) / sum(aspects)


def _row_rooms(entries: Sequence[GalleryEntry], row: _GalleryRow) -> list[tuple[GalleryEntry, float]]:
    """The row's entries, each with the width of its place."""
    return [(entries[index], row.height * _slot_aspect(entries[index].image)) for index in row.indices]


def _gallery_tops(rows: Sequence[_GalleryRow], captions: Sequence[Sequence[str]]) -> tuple[list[float], float]:
    """Top of each row's pictures, and the height of all; captions stand above their pictures."""
    tops, cursor = [], 0.0
    for row in rows:
        cursor += _line_height(LABEL_PT) * max(len(captions[index]) for index in row.indices) + CAPTION_GAP
        tops.append(cursor)
        cursor += row.height + 1.5 * GAP
    return tops, cursor - 1.5 * GAP


# -------------------------------------------------------------------------------------------- header and footer


@dataclass(frozen=True)
class _Page:
    """A figure with its header and footer drawn.

    All pictures are painted into one array and handed to matplotlib together, which takes half the time that axes for
    each would take.

    Attributes:
        figure: The figure.
        to_figure: From pixels of the page, counted from its top left corner, to where matplotlib draws.
        pixels: `[height, width, 3]` uint8, what lies under lines and letters; painted in place.
        left: Where the body begins, in inches.
        top: The same, from above.
    """

    figure: Figure
    to_figure: Transform
    pixels: np.ndarray
    left: float
    top: float


class _PagePixels(BboxImage):
    """Pixels that fill a figure, handed over as they are where each is one pixel of the figure."""

    def make_image(
        self, renderer: RendererBase, magnification: float = 1.0, unsampled: bool = False
    ) -> tuple[np.ndarray, float, float, Affine2D]:
        """The image as matplotlib draws it, from below; resampled for other resolutions, as in a PDF."""
        pixels = np.asarray(self.get_array())
        shape = round(self.figure.bbox.height * magnification), round(self.figure.bbox.width * magnification)
        if pixels.shape[:2] != shape:
            return super().make_image(renderer, magnification, unsampled)
        opaque = np.full((*shape, 4), 255, np.uint8)
        opaque[..., :3] = pixels[::-1]
        return opaque, 0.0, 0.0, Affine2D()


@dataclass(frozen=True)
class _KeyItem:
    """One entry of the footer: the kind of sign and what it means."""

    sign: str
    text: str

    @property
    def sign_width(self) -> float:
        """Width of the sign in inches."""
        return 1.1 if self.sign == "heat" else 0.26

    @property
    def width(self) -> float:
        """Width of sign and text in inches."""
        return self.sign_width + 0.07 + _text_width(self.text, SMALL_PT)


def _key_items(truth_xyxy: Box | None, *, mask: bool = True, heat: bool = True) -> list[_KeyItem]:
    """What the footer explains."""
    items = [_KeyItem("predicted", "predicted box")]
    if truth_xyxy is not None:
        items.append(_KeyItem("truth", "ground truth"))
    if mask:
        items.append(_KeyItem("mask", "mask"))
    if heat:
        items.append(_KeyItem("heat", "attention, 0 to each map's peak"))
    return items


def _start_page(body_wh: tuple[float, float], title: str, subtitle: str, items: Sequence[_KeyItem], dpi: int) -> _Page:
    """Make a figure around a body of the given size and draw its header and footer."""
    width = max(body_wh[0], MIN_PAGE_WIDTH)
    header = [(line, TITLE_PT, "bold", INK) for line in _wrap(title, width, TITLE_PT, "bold")]
    header += [(line, SMALL_PT, "normal", QUIET) for line in _wrap(subtitle, width, SMALL_PT)]
    footer = _flow(items, width)
    top = MARGIN + sum(_line_height(size) for _, size, _, _ in header) + (0.07 if header else 0.0)
    height = top + body_wh[1] + 0.08 + len(footer) * FOOTER_LINE + 0.7 * MARGIN
    page = _empty_page(width + 2 * MARGIN, height, top, dpi)
    cursor = MARGIN
    for line, size, weight, color in header:
        _put_text(page, MARGIN, cursor, line, size, weight=weight, color=color)
        cursor += _line_height(size)
    for row, row_items in enumerate(footer):
        _draw_key_row(page, row_items, top + body_wh[1] + 0.08 + row * FOOTER_LINE)
    return page


def _empty_page(width: float, height: float, top: float, dpi: int) -> _Page:
    """A white page of at least the given size; whole pixels, so that pictures are not resampled."""
    width_px, height_px = math.ceil(width * dpi), math.ceil(height * dpi)
    figure = Figure(figsize=(width_px / dpi, height_px / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    to_figure = Affine2D().scale(1 / width_px, -1 / height_px).translate(0, 1) + figure.transFigure
    return _Page(figure, to_figure, np.full((height_px, width_px, 3), 255, np.uint8), MARGIN, top)


def _finish_page(page: _Page, path: FigurePath) -> Figure:
    """Lay the painted pixels under lines and letters, and write the figure."""
    image = _PagePixels(page.figure.bbox, interpolation="nearest")
    image.set_data(page.pixels)
    page.figure.add_artist(image)
    _write(page.figure, path)
    return page.figure


def _flow(items: Sequence[_KeyItem], width: float) -> list[list[_KeyItem]]:
    """Break the footer's entries into rows that fit."""
    rows: list[list[_KeyItem]] = [[]]
    used = 0.0
    for item in items:
        if rows[-1] and used + item.width > width:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += item.width + KEY_GAP
    return rows


def _draw_key_row(page: _Page, items: Sequence[_KeyItem], top: float) -> None:
    """Draw a row of the footer."""
    left = MARGIN
    for item in items:
        slot = _Slot(left + 0.01, top + 0.03, item.sign_width - 0.02, 0.12)
        if item.sign == "heat":
            _paint_heat_bar(page, slot)
        else:
            _paint(page, slot, np.full((*_pixel_size(page, slot)[::-1], 3), 0xB9, np.uint8))
            left_px, top_px = slot.left * page.figure.dpi, slot.top * page.figure.dpi
            width_px, height_px = _pixel_size(page, slot)
            _draw_frame(page, item.sign, (left_px, top_px, left_px + width_px, top_px + height_px), 0.8)
        _put_text(page, left + item.sign_width + 0.07, top + 0.015, item.text, SMALL_PT, color=QUIET)
        left += item.width + KEY_GAP


def _paint_heat_bar(page: _Page, slot: _Slot) -> None:
    """Paint the one colour bar: what a rising map looks like over a grey picture."""
    width, height = _pixel_size(page, slot)
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    _paint(page, slot, _blend(np.full((height, width, 3), 200, np.uint8), ramp))


def _put_text(
    page: _Page, left: float, top: float, text: str, size: float, *, weight: str = "normal", color: str = INK
) -> None:
    """Write a line whose upper edge is `top`; `$` is a character like others."""
    if not text:
        return
    width, height = page.figure.get_size_inches()
    page.figure.text(
        left / width,
        1 - (top + 0.78 * _line_height(size)) / height,
        _printable(text),
        fontsize=size,
        fontweight=weight,
        fontfamily=_font_families(),
        color=color,
        va="baseline",
        parse_math=False,
    )


def _line_height(size: float) -> float:
    """Distance between two lines of text, in inches."""
    return size * 1.35 / 72


def _pixel_size(page: _Page, slot: _Slot) -> tuple[int, int]:
    """Width and height of a slot in whole pixels."""
    dpi = page.figure.dpi
    return max(round(slot.width * dpi), 1), max(round(slot.height * dpi), 1)


def _paint(page: _Page, slot: _Slot, pixels: np.ndarray) -> tuple[int, int]:
    """Paint pixels onto the page at a slot given from the page's corner; returns their left and top pixel."""
    left, top = round(slot.left * page.figure.dpi), round(slot.top * page.figure.dpi)
    page.pixels[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return left, top


# ----------------------------------------------------------------------------------------- pictures and overlays

# What each sign is drawn with, from below: (colour, line width in points, line style).
_STROKES: dict[str, tuple[tuple[str, float, object], ...]] = {
    "predicted": (("#00000080", 3.6, "solid"), (PREDICTED_COLOR, 2.2, "solid")),
    "truth": (("#262626", 2.0, "solid"), (TRUTH_COLOR, 1.5, (0, (4, 3)))),
    "mask": (("#FFFFFFB0", 2.4, "solid"), ("#262626", 0.9, "solid")),
}


@dataclass(frozen=True)
class _Place:
    """Where a picture lies on the page: offset and scale from pixels of the original image to pixels of the page."""

    offset_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    image_size_wh: tuple[int, int]

    def points(self, points_xy: np.ndarray) -> np.ndarray:
        """Points `[..., 2]` of the original image, cut to it, on the page."""
        return np.clip(points_xy, 0, self.image_size_wh) * self.scale_xy + self.offset_xy

    def box(self, box_xyxy: Box) -> Box:
        """A box of the original image, cut to it, on the page."""
        (x0, y0), (x1, y1) = self.points(np.reshape(box_xyxy, (2, 2)))
        return float(x0), float(y0), float(x1), float(y1)


def _draw_panel(
    page: _Page, slot: _Slot, label: _Label, rows: int, pixels: np.ndarray, image_size_wh: tuple[int, int]
) -> _Place:
    """Draw a picture under its label of so many lines."""
    left, top = page.left + slot.left, page.top + slot.top - rows * _line_height(LABEL_PT)
    for row, (name, details) in enumerate(label.lines(rows)):
        offset = _text_width(f"{name}  ", LABEL_PT, "bold") if name else 0.0
        line_top = top + row * _line_height(LABEL_PT)
        _put_text(page, left, line_top, name, LABEL_PT, weight="bold")
        _put_text(page, left + offset, line_top, details, SMALL_PT, color=QUIET)
    return _draw_picture(page, slot, pixels, image_size_wh)


def _draw_picture(page: _Page, slot: _Slot, pixels: np.ndarray, image_size_wh: tuple[int, int]) -> _Place:
    """Paint finished pixels into a slot of the body, with a thin frame."""
    height, width = pixels.shape[:2]
    offset = _paint(page, _Slot(page.left + slot.left, page.top + slot.top, slot.width, slot.height), pixels)
    frame = Rectangle(offset, width, height, fill=False, edgecolor=FAINT, linewidth=0.6, transform=page.to_figure)
    page.figure.add_artist(frame)
    return _Place(offset, (width / image_size_wh[0], height / image_size_wh[1]), image_size_wh)


def _draw_gallery_entry(page: _Page, entry: GalleryEntry, caption: Sequence[str], slot: _Slot) -> None:
    """Draw one picture of a gallery under its caption, as large as its place allows."""
    top = page.top + slot.top - CAPTION_GAP - len(caption) * _line_height(LABEL_PT)
    for row, line in enumerate(caption):
        is_score = row == len(caption) - 1 and (line == NO_BOX or line.startswith("IoU "))
        weight, color = ("normal", QUIET) if is_score else ("bold", INK)
        line_top = top + row * _line_height(LABEL_PT)
        _put_text(page, page.left + slot.left, line_top, line, LABEL_PT, weight=weight, color=color)
    scale = min(slot.width / entry.image.width, slot.height / entry.image.height)
    fitted = _Slot(slot.left, slot.top, entry.image.width * scale, entry.image.height * scale)
    pixels = _fit(entry.image, _pixel_size(page, fitted))
    if entry.map is not None and entry.grid is not None:
        pixels = _overlay(_faded(pixels), entry.map, entry.grid, entry.image.size)
    place = _draw_picture(page, fitted, pixels, entry.image.size)
    _draw_box(page, place, "predicted", entry.box_xyxy, weight=0.7)
    _draw_box(page, place, "truth", entry.truth_xyxy, weight=0.8)


def _draw_box(page: _Page, place: _Place, sign: str, box_xyxy: Box | None, weight: float = 1.0) -> None:
    """Draw a box of the original image, if there is one; `weight` scales the width of its lines."""
    if box_xyxy is not None:
        _draw_frame(page, sign, place.box(box_xyxy), weight)


def _draw_frame(page: _Page, sign: str, box_xyxy: Box, weight: float) -> None:
    """Draw a frame given in pixels of the page, in the strokes of its sign."""
    x0, y0, x1, y1 = box_xyxy
    for color, line_width, line_style in _STROKES[sign]:
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=line_width * weight)
        frame.set(linestyle=line_style, transform=page.to_figure)
        page.figure.add_artist(frame)


def _draw_cell_outline(page: _Page, place: _Place, cell_mask: np.ndarray, grid: Grid) -> None:
    """Draw the border between the cells of the mask and the others."""
    segments = place.points(_border_segments(cell_mask, grid))
    segments = segments[np.any(segments[:, 0] != segments[:, 1], axis=1)]
    for color, line_width, _ in _STROKES["mask"]:
        lines = LineCollection(list(segments), colors=color, linewidths=line_width, capstyle="projecting")
        lines.set_transform(page.to_figure)
        page.figure.add_artist(lines)


def _border_segments(cell_mask: np.ndarray, grid: Grid) -> np.ndarray:
    """`[n, 2, 2]` ends (x, y) of the cell edges with the mask on one side only, in pixels of the original image."""
    padded = np.pad(np.asarray(cell_mask, bool), 1)
    row, col = np.nonzero(padded[1:-1, :-1] != padded[1:-1, 1:])
    upright = np.stack([np.stack([col, row], axis=1), np.stack([col, row + 1], axis=1)], axis=1)
    row, col = np.nonzero(padded[:-1, 1:-1] != padded[1:, 1:-1])
    level = np.stack([np.stack([col, row], axis=1), np.stack([col + 1, row], axis=1)], axis=1)
    return np.concatenate([upright, level]) * (grid.cell_w, grid.cell_h) + (grid.x0, grid.y0)


def _fit(image: Image.Image | np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """The picture at the given size, `[height, width, 3]` uint8."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    if picture.size == size_wh:
        return np.asarray(picture)
    return np.asarray(picture.resize(size_wh, Image.Resampling.BICUBIC, reducing_gap=2.0))


def _faded(pixels: np.ndarray) -> np.ndarray:
    """A slightly greyer and lighter copy, so that the map's colours stand out."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return (0.35 * pixels + 0.5 * grey[..., None] + 0.15 * 255).astype(np.uint8)


def _overlay(pixels: np.ndarray, map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int]) -> np.ndarray:
    """The pixels with the map over them; pixels that the grid does not cover stay as they are.

    Args:
        pixels: `[height, width, 3]` uint8, the picture at any scale.
        map_: `[rows, cols]` attention.
        grid: Where the map lies, in pixels of the original image.
        image_size_wh: Size of the original image.

    Returns:
        `[height, width, 3]` uint8.
    """
    heat = _resample(map_, grid, image_size_wh, (pixels.shape[1], pixels.shape[0]))
    peak = float(heat.max())
    return _blend(pixels, heat / peak) if peak > 0 else pixels


def _resample(map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], size_wh: tuple[int, int]) -> np.ndarray:
    """The map at each pixel of the picture, `[height, width]` float32, at least 0; 0 where the grid does not reach."""
    x0, y0, x1, y1 = grid.box_xyxy
    scale_x, scale_y = size_wh[0] / image_size_wh[0], size_wh[1] / image_size_wh[1]
    left, right = max(0, math.ceil(x0 * scale_x - 1e-6)), min(size_wh[0], math.floor(x1 * scale_x + 1e-6))
    top, bottom = max(0, math.ceil(y0 * scale_y - 1e-6)), min(size_wh[1], math.floor(y1 * scale_y + 1e-6))
    heat = np.zeros((size_wh[1], size_wh[0]), np.float32)
    if right <= left or bottom <= top:
        return heat
    cols = np.clip((np.array([left, right]) / scale_x - x0) / grid.cell_w, 0, grid.cols)
    rows = np.clip((np.array([top, bottom]) / scale_y - y0) / grid.cell_h, 0, grid.rows)
    tile = Image.fromarray(np.ascontiguousarray(map_, dtype=np.float32))
    box = (float(cols[0]), float(rows[0]), float(cols[1]), float(rows[1]))
    smooth = tile.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)
    heat[top:bottom, left:right] = np.maximum(np.asarray(smooth), 0)
    return heat


def _blend(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay colours for `heat` in [0, 1] over pixels; the more heat, the less of the picture shows."""
    colors, alphas = _heat_table()
    level = (heat * 255).astype(np.uint8)
    alpha = alphas[level][..., None]
    return (pixels * (1 - alpha) + colors[level] * alpha).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _heat_table() -> tuple[np.ndarray, np.ndarray]:
    """Colour `[256, 3]` in 0..255 and opacity `[256]` in 0..1 of each level of attention."""
    level = np.linspace(0, 1, 256)
    colors = matplotlib.colormaps[HEAT](0.2 + 0.8 * level)[:, :3] * 255
    return colors.astype(np.float32), (0.85 * level**0.85).astype(np.float32)


# ------------------------------------------------------------------------------------------ style of data figures


def _paper_figure(width: float, height: float, width_ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side."""
    figure = Figure(figsize=(width, height), dpi=PAPER_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(width_ratios), squeeze=False, gridspec_kw={"width_ratios": list(width_ratios)})
    return figure, list(axes[0])


def _finish(axes: Axes, title: str, x_label: str, y_label: str, grid_axis: Literal["x", "y"] | None = "y") -> None:
    """Give axes their title, labels and the common look."""
    text: dict[str, Any] = {"fontfamily": _font_families(), "color": INK, "parse_math": False}
    room = axes.get_window_extent().width / PAPER_DPI
    lines = [line for part in title.split("\n") for line in _wrap(part, room, PAPER_PT + 1, "bold")]
    axes.set_title("\n".join(lines), fontsize=PAPER_PT + 1, fontweight="bold", loc="left", **text)
    axes.set_xlabel(x_label, fontsize=PAPER_PT, **text)
    axes.set_ylabel(y_label, fontsize=PAPER_PT, **text)
    for side in ("top", "right") if grid_axis else ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_linewidth(0.7)
    if grid_axis:
        axes.grid(axis=grid_axis, color=FAINT, linewidth=0.5, alpha=0.7)
        axes.set_axisbelow(True)
    _style_ticks(axes)


def _style_ticks(axes: Axes) -> None:
    """Small, quiet ticks."""
    axes.tick_params(labelsize=PAPER_PT - 1, colors=QUIET, labelcolor=INK, width=0.6, length=2.5)
    axes.tick_params(labelfontfamily=_font_families())


def _percent_ticks(axis: Axis, highest: float) -> None:
    """Ticks in per cent for shares from 0 to `highest`."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0 if highest > 0.06 else 1))


def _legend(axes: Axes, place: str, columns: int = 1) -> None:
    """A legend without a frame."""
    style: dict[str, Any] = {"loc": place, "ncols": columns, "frameon": False, "labelcolor": INK, "handlelength": 1.8}
    axes.legend(prop=FontProperties(family=_font_families(), size=PAPER_PT - 1), **style)


def _note(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """A small text at a place given in data."""
    style = {"fontsize": PAPER_PT - 1, "fontfamily": _font_families(), "color": INK, "parse_math": False, **options}
    axes.text(x, y, text, **style)  # type: ignore[arg-type]


def _series_style(index: int) -> tuple[str, str]:
    """Colour and marker of a curve; both differ, so that neither is needed alone."""
    colors = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
    return colors[index % len(colors)], "osD^vP*X"[index % 8]


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
        _note(
            axes, head, layer, text, ha="center", va="center", color="white" if dark else INK, fontsize=PAPER_PT - 1.5
        )


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
        _note(
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
        _note(axes, float(place), end, f"{height:.2f}", ha="center", va="bottom")
    axes.set_xticks(places, [name.replace(" ", "\n") for name in names])
    axes.set_ylim(0, max(float(ends.max()) * 1.12, 1e-3))


def _p_text(p_value: float) -> str:
    """A p-value as papers write it."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


# --------------------------------------------------------------------------------------------------------- files


def _write(figure: Figure, path: FigurePath) -> None:
    """Write the figure whole or not at all; the same figure gives the same bytes."""
    if path is None:
        return
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in {".png", ".pdf"}:
        raise ValueError(f"Expected the path of a figure to end in .png or .pdf, but got {str(path)!r}. Rename it.")
    atomic_write(path, _png_bytes(figure) if kind == ".png" else _pdf_bytes(figure))


def _png_bytes(figure: Figure) -> bytes:
    """The figure as PNG without alpha, packed lightly: tight packing would take longer than the drawing."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    buffer = BytesIO()
    picture.save(buffer, format="png", compress_level=1, dpi=(figure.dpi, figure.dpi))
    return buffer.getvalue()


def _pdf_bytes(figure: Figure) -> bytes:
    """The figure as PDF with TrueType letters, which publishers ask for; only a global setting can say so."""
    buffer = BytesIO()
    with _pdf_settings_lock, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()
