"""Figures for people: where heads look in one picture, and what a data set says of all heads.

Every function draws on a figure of its own, without pyplot, a display or a change of matplotlib's global settings, so
that several threads may draw at once. Each returns its figure and, where `path` is not None, writes it there. How they
are drawn is the business of `figures/`; matplotlib is imported with the first figure.

Layers and heads are 0-based. Boxes are half-open `xyxy` in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bbox import SLIVER, box_iou, cell_coverage, smooth_maps
from figures.checks import check_figure_path, check_top_heads, finite_array
from figures.records import AuditBar, AuditPage, Box, Ends, FigurePath, GalleryEntry, TopHeads
from lab.records import Grid, HeadChoice, Localization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "AuditBar",
    "GalleryEntry",
    "draw_elbow",
    "draw_frequency_vs_samples",
    "draw_gallery",
    "draw_head_audit",
    "draw_head_frequency_bars",
    "draw_layer_head_map",
    "draw_top_heads",
    "show",
    "write_formats",
]


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
    truth_box_xyxy: Box | None = None,
    model_name: str | None = None,
    top_k: int | None = None,
    dpi: int = 120,
) -> Figure:
    """Draw the picture with its box, each chosen head's map over it, and the combined map with the mask's outline.

    Maps are drawn as the cells that they are made of, all on one scale of attention in a cell, which ends at the
    largest value on the picture; the combined map is their mean, so that it has the same unit. Each head is shown with
    the share of its attention that lies on the picture rather than on padding or words.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        image: The original picture after EXIF rotation.
        maps: `[K, rows, cols]` raw attention of the chosen heads, in the order of `choice.heads`.
        grid: Where the maps lie in the picture.
        choice: The chosen heads with their scores.
        localization: Combined map, mask and box.
        query: What was asked.
        sigma: Smoothing of the single maps, in cells, the same as for the localization.
        truncate: Where the smoothing kernel ends, in sigmas.
        truth_box_xyxy: Ground-truth box, if known.
        model_name: Name or path of the model; its last part is named in the line below the query.
        top_k: How many heads were asked for; if fewer passed the criteria, the figure says so.
        dpi: Pixels per inch of the page.

    Returns:
        The figure.

    Raises:
        ValueError: If the maps fit neither grid nor choice, are not finite, or the picture has another size than the
            localization's, or the path ends otherwise.
    """
    from figures.top_heads import draw_top_heads as draw

    check_figure_path(path)
    check_top_heads(image, maps, grid, choice, localization)
    on_picture = cell_coverage((0, 0, *image.size), grid)
    smooth = smooth_maps(maps, sigma=sigma, truncate=truncate)
    shown = TopHeads(
        maps=smooth,
        shares=[float(share) for share in (maps * on_picture).sum(axis=(1, 2), dtype=np.float64)],
        peak=float((smooth * (on_picture > SLIVER)).max()),
        grid=grid,
        choice=choice,
        localization=localization,
        query=query,
        sigma=sigma,
        truth_box_xyxy=truth_box_xyxy,
        iou=_iou_or_none(localization.box_xyxy, truth_box_xyxy),
        model_name=model_name,
        top_k=top_k,
    )
    return draw(path, image, shown, dpi=dpi)


def draw_gallery(
    path: FigurePath,
    entries: Sequence[GalleryEntry],
    *,
    title: str | None = None,
    subtitle: str = "",
    hit_at: float = 0.5,
    width: float = 10.0,
    row_height: float = 2.1,
    dpi: int = 120,
) -> Figure:
    """Draw many pictures in rows, each under its query, with predicted box, ground truth, IoU and, if given, its map.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        entries: The pictures, in reading order. Their maps are drawn on one scale.
        title: Line above all.
        subtitle: Quiet line below it, such as how the pictures were chosen.
        hit_at: An IoU below this, or no box where there is a ground truth, is marked as a miss.
        width: Width of the pictures together, in inches.
        row_height: Height of a row of pictures, in inches, about: rows are stretched to the full width.
        dpi: Pixels per inch of the page.

    Returns:
        The figure.

    Raises:
        ValueError: If there are no entries, or the path ends otherwise.
    """
    from figures.gallery import draw_gallery as draw

    check_figure_path(path)
    ious = [_iou_or_none(entry.box_xyxy, entry.truth_xyxy) for entry in entries]
    size: dict[str, Any] = {"width": width, "row_height": row_height, "dpi": dpi}
    return draw(path, entries, ious, title=title, subtitle=subtitle, hit_at=hit_at, **size)


def draw_elbow(
    path: FigurePath,
    mean_sums: np.ndarray,
    threshold: float,
    *,
    title: str = "Criterion 1: attention sum",
    note: str = "",
    num_samples: int | None = None,
    dpi: int = 200,
) -> Figure:
    """Draw the sorted mean attention sums of all heads, their chord, and the threshold at the elbow.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        mean_sums: `[layers, heads]` (or any shape) mean attention sum of each head, in [0, 1].
        threshold: Heads with at least this sum are kept.
        title: Title of the figure.
        note: What else is to be told below it, such as that each sample has a threshold of its own.
        num_samples: Number of samples that the means are over, to be told in the figure.
        dpi: Pixels per inch.

    Returns:
        The figure.
    """
    from figures.survey import draw_elbow as draw

    check_figure_path(path)
    return draw(path, mean_sums, threshold, title=title, note=note, num_samples=num_samples, dpi=dpi)


def draw_layer_head_map(
    path: FigurePath,
    values: np.ndarray,
    title: str,
    colorbar_label: str,
    *,
    marked: Sequence[tuple[int, int]] = (),
    marked_as: str = "framed: fixed heads",
    percent: bool = False,
    num_samples: int | None = None,
    dpi: int = 200,
) -> Figure:
    """Draw a value for each head as a map of layers (down) by heads (across).

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        values: `[layers, heads]`, such as mean attention sums or selection frequencies.
        title: Title of the figure.
        colorbar_label: What the values are.
        marked: (layer, head) of heads to frame and name.
        marked_as: What the marked heads are.
        percent: Whether values are shares in [0, 1] to be shown as percentages.
        num_samples: Number of samples that the values are over, to be told in the figure.
        dpi: Pixels per inch.

    Returns:
        The figure.

    Raises:
        ValueError: If values is not two-dimensional and finite, or a marked head lies outside.
    """
    from figures.survey import draw_layer_head_map as draw

    check_figure_path(path)
    marks: dict[str, Any] = {"marked": marked, "marked_as": marked_as}
    return draw(path, values, title, colorbar_label, **marks, percent=percent, num_samples=num_samples, dpi=dpi)


def draw_head_frequency_bars(
    path: FigurePath,
    names: Sequence[str],
    frequency: Sequence[float],
    ends: Ends | None = None,
    *,
    fixed: Sequence[str] = (),
    num_samples: int | None = None,
    ends_label: str = "95 % intervals, pictures drawn again",
    title: str = "Selection frequency of the top heads",
    dpi: int = 200,
) -> Figure:
    """Draw how often each of the top heads was chosen, best first, with its interval; ties are marked.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        names: Names of the heads, such as L14H24, best first.
        frequency: Share of the samples that chose each, in [0, 1].
        ends: Lower and upper ends of the intervals, one of each a head; None draws no whiskers.
        fixed: Names of the heads that are used as fixed heads, whether or not they are among `names`.
        num_samples: Number of samples, to be told in the figure.
        ends_label: What the whiskers are.
        title: Title of the figure.
        dpi: Pixels per inch.

    Returns:
        The figure.

    Raises:
        ValueError: If the lengths differ, or an interval's ends are the wrong way round.
    """
    from figures.survey import draw_head_frequency_bars as draw

    check_figure_path(path)
    words = {"ends_label": ends_label, "title": title}
    return draw(path, names, frequency, ends, fixed=fixed, num_samples=num_samples, **words, dpi=dpi)


def draw_frequency_vs_samples(
    path: FigurePath,
    sample_counts: Sequence[int],
    frequency: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray] | None,
    names: Sequence[str],
    *,
    band_label: str = "95 % of the data sets of that size, pictures drawn again",
    title: str = "Selection frequency against samples",
    dpi: int = 200,
) -> Figure:
    """Draw how the selection frequency of each head settles as samples are added.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        sample_counts: `[n]` numbers of samples, ascending.
        frequency: `[K, n]` share of the samples that chose each head, in [0, 1].
        ends: Lower and upper ends of the bands, `[K, n]` each; None draws no bands.
        names: K names of heads.
        band_label: What the bands are.
        title: Title of the figure.
        dpi: Pixels per inch.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes differ, or a band's ends are the wrong way round.
    """
    from figures.survey import draw_frequency_vs_samples as draw

    check_figure_path(path)
    return draw(path, sample_counts, frequency, ends, names, band_label=band_label, title=title, dpi=dpi)


def draw_head_audit(
    path: FigurePath,
    frequency: np.ndarray,
    iou: np.ndarray,
    *,
    fixed: Sequence[tuple[int, int]],
    skip_layers: int = 0,
    spearman: float,
    p_value: float,
    bars: Sequence[AuditBar],
    control_bars: Sequence[AuditBar] = (),
    verdict: str = "",
    num_rows: int | None = None,
    num_pictures: int | None = None,
    num_samples: int | None = None,
    interval_label: str = "95 % intervals, pictures drawn again",
    value_label: str = "mean IoU of the box",
    control_title: str = "Phrase control",
    control_label: str = "mean IoU with the target",
    dpi: int = 200,
) -> Figure:
    """Draw whether the heads that were chosen often are the ones that look at the target.

    Left, each head's selection frequency against its own IoU with the ground truth, the fixed heads and the best two by
    name; right, the fixed heads together against what they are compared with, and below that the phrase control.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        frequency: `[layers, heads]` selection frequency, in [0, 1].
        iou: `[layers, heads]` mean IoU of each head's own box with the ground truth.
        fixed: (layer, head) of the fixed heads.
        skip_layers: First layers that the rules leave out; their heads are hollow, since no sample could choose them.
        spearman: Rank correlation of the two, over the other heads; NaN where it is not defined.
        p_value: Its p-value.
        bars: The compared ways with their intervals, the fixed heads first.
        control_bars: Score on the phrase's own target, then on others, with intervals.
        verdict: One sentence that stands above all.
        num_rows: Number of rows, to be told in the figure.
        num_pictures: Number of pictures that they belong to, likewise.
        num_samples: Number of samples that the frequency is over, told where it is another one.
        interval_label: What the whiskers are, such as 95 % interval, pictures resampled.
        value_label: What the bars measure.
        control_title: Title of the control.
        control_label: What the control's bars measure.
        dpi: Pixels per inch.

    Returns:
        The figure.

    Raises:
        ValueError: If shapes or lengths differ, or there is no bar.
    """
    from figures.audit import correlation_text
    from figures.audit import draw_head_audit as draw

    check_figure_path(path)
    frequency = finite_array("frequency", frequency, ndim=2)
    page = AuditPage(
        frequency=frequency,
        iou=finite_array("iou", iou, shape=frequency.shape),
        fixed=fixed,
        skip_layers=skip_layers,
        correlation=correlation_text(spearman, p_value),
        bars=bars,
        control_bars=control_bars,
        verdict=verdict,
        num_rows=num_rows,
        num_pictures=num_pictures,
        num_samples=num_samples,
        interval_label=interval_label,
        value_label=value_label,
        control_title=control_title,
        control_label=control_label,
    )
    return draw(path, page, dpi=dpi)


def write_formats(figure: Figure, path: str | Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure once for each format, beside each other: draw with `path=None`, then write.

    Args:
        figure: A figure that one of this module's functions returned.
        path: Path of the figure; its ending is replaced by each format's.
        formats: Such as `png`, `pdf`, `svg`.

    Returns:
        The paths written, in the order of `formats`.

    Raises:
        ValueError: If a format is none of these; then nothing is written.
    """
    from figures.writing import write_formats as write

    return write(figure, path, formats)


def show(figure: Figure) -> None:
    """Open a window with the figure and wait until it is closed; without a display say so in the log, and go on.

    Args:
        figure: A figure that one of this module's functions returned.
    """
    from figures.window import show as open_window

    open_window(figure)


def _iou_or_none(box_xyxy: Box | None, truth_xyxy: Box | None) -> float | None:
    """IoU of two boxes, where there are two."""
    return None if box_xyxy is None or truth_xyxy is None else box_iou(box_xyxy, truth_xyxy)
