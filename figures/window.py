"""A figure in a window."""

from __future__ import annotations

import logging

from matplotlib.figure import Figure

from figures.writing import agg_pixels

logger = logging.getLogger(__name__)


def show(figure: Figure) -> None:
    """Open a window with the figure and wait until it is closed; without a display say so in the log, and go on.

    Args:
        figure: Any figure.
    """
    from matplotlib import pyplot

    if pyplot.get_backend().lower() in {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}:
        logger.warning("Cannot show a figure: no display was found. Set save_fig=true and open the file.")
        return
    pixels = agg_pixels(figure)
    # pyplot shows only figures that it made: one of the same size gets the finished pixels.
    window = pyplot.figure(figsize=figure.get_size_inches(), dpi=figure.dpi)
    window.figimage(pixels)
    pyplot.show()
    pyplot.close(window)
