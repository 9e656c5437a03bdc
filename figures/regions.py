"""The regions of pictures drawn over them: where the cells of the model's image tokens lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from figures.overlay import fade, fit
from figures.paper import add_footer, empty_paper, finish_axes
from figures.records import FigurePath
from figures.theme import BLUE, GREEN, ORANGE, PURPLE, VERMILION
from figures.writing import write_figure
from lab.grids import Grid

PANEL_INCHES = 2.9
LONGEST_SIDE = 700
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)

Parts = Sequence[tuple[str, Grid]]


def draw_regions(path: FigurePath, pictures: Sequence[tuple[Image.Image, Parts]], title: str, *, dpi: int) -> Figure:
    """Draw the cells of each picture's regions over it: tiles, or the whole, in one panel, the thumbnail in another.

    Args:
        path: Where to write, `.png`, `.pdf` or `.svg`; None draws only.
        pictures: Each picture, with kind and grid of each of its regions.
        title: What the model is called.
        dpi: Pixels per inch.

    Returns:
        The figure.
    """
    panels = [(image, parts) for image, regions in pictures for parts in _panels(regions)]
    figure = empty_paper(PANEL_INCHES * len(panels), PANEL_INCHES + 0.5, dpi)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (image, parts) in zip(row, panels):
        _draw_panel(axes, image, parts)
    add_footer(figure, [title, "thick: a region; thin: the cell of one image token", "cells may reach over the edges"])
    write_figure(figure, path)
    return figure


def _panels(regions: Parts) -> Iterator[Parts]:
    """The regions that lie beside one another, and the thumbnail, which lies over them."""
    for parts in (
        [region for region in regions if region[0] != "thumbnail"],
        [region for region in regions if region[0] == "thumbnail"],
    ):
        if parts:
            yield parts


def _draw_panel(axes: Axes, image: Image.Image, parts: Parts) -> None:
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    axes.imshow(fade(fit(image, size)), extent=(0, image.width, image.height, 0))
    for number, (_, grid) in enumerate(parts):
        _draw_grid(axes, grid, COLORS[number % len(COLORS)])
    boxes = np.array([(0, 0, *image.size), *(grid.box_xyxy for _, grid in parts)], dtype=float)
    margin = 0.02 * max(image.size)
    axes.set_xlim(boxes[:, 0].min() - margin, boxes[:, 2].max() + margin)
    axes.set_ylim(boxes[:, 3].max() + margin, boxes[:, 1].min() - margin)
    axes.set_aspect("equal")
    kind, first = parts[0]
    count = f"{len(parts)} {kind}s" if len(parts) > 1 else kind
    finish_axes(axes, f"{count}, {first.rows} x {first.cols} cells", "x in px", "y in px", grid_axis=None)


def _draw_grid(axes: Axes, grid: Grid, color: str) -> None:
    x0, y0, x1, y1 = grid.box_xyxy
    across = [[(x, y0), (x, y1)] for x in np.linspace(x0, x1, grid.cols + 1)]
    down = [[(x0, y), (x1, y)] for y in np.linspace(y0, y1, grid.rows + 1)]
    axes.add_collection(LineCollection([*across, *down], colors=color, linewidths=0.35))
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=1.6))
