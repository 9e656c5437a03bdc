"""Figures for people: where heads look in one picture, and what a data set says of all heads.

Every function draws on a figure of its own, without pyplot, a display or a change of matplotlib's global settings, so
that several threads may draw at once. Each returns its figure and, where `path` is not None, writes it there. How they
are drawn is the business of `figures/`; matplotlib is imported with the first figure.

Layers and heads are 0-based. Boxes are half-open `xyxy` in pixels of the original image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bbox import box_iou, smooth_maps
from figures.checks import check_top_heads
from figures.records import Box, FigurePath, GalleryEntry
from lab.records import Grid, HeadChoice, Localization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GalleryEntry",
    "draw_elbow",
    "draw_frequency_vs_samples",
    "draw_gallery",
    "draw_head_audit",
    "draw_head_frequency_bars",
    "draw_layer_head_map",
    "draw_top_heads",
    "show",
]

logger = logging.getLogger(__name__)


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
    from figures.top_heads import draw_top_heads as draw

    check_top_heads(image, maps, grid, choice, localization)
    smooth = smooth_maps(maps, sigma=sigma, truncate=truncate)
    iou = _iou_or_none(localization.box_xyxy, truth_xyxy)
    return draw(
        path,
        image,
        smooth,
        grid,
        choice,
        localization,
        query,
        sigma=sigma,
        truth_xyxy=truth_xyxy,
        iou=iou,
        model_name=model_name,
        dpi=dpi,
    )


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
    from figures.gallery import draw_gallery as draw

    ious = [_iou_or_none(entry.box_xyxy, entry.truth_xyxy) for entry in entries]
    return draw(path, entries, ious, title=title, width=width, row_height=row_height, dpi=dpi)


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
    from figures.survey import draw_elbow as draw

    return draw(path, mean_sums, threshold, title=title)


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
    from figures.survey import draw_layer_head_map as draw

    return draw(path, values, title, colorbar_label, marked=marked, percent=percent)


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
    from figures.survey import draw_head_frequency_bars as draw

    return draw(path, names, frequency, sd, num_fixed=num_fixed, title=title)


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
    from figures.survey import draw_frequency_vs_samples as draw

    return draw(path, sample_counts, frequency, sd, names, title=title)


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
    from figures.audit import draw_head_audit as draw

    return draw(
        path,
        frequency,
        iou,
        fixed=fixed,
        skip_layers=skip_layers,
        spearman=spearman,
        p_value=p_value,
        bar_names=bar_names,
        bar_values=bar_values,
        bar_sd=bar_sd,
        value_label=value_label,
    )


def show(figure: Figure) -> None:
    """Open a window with the figure and wait until it is closed; without a display say so in the log, and go on.

    Args:
        figure: A figure that one of this module's functions returned.
    """
    from matplotlib import pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg

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


def _iou_or_none(box_xyxy: Box | None, truth_xyxy: Box | None) -> float | None:
    """IoU of two boxes, where there are two."""
    return None if box_xyxy is None or truth_xyxy is None else box_iou(box_xyxy, truth_xyxy)
