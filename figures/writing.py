"""Figures as files: the same figure gives the same bytes, whole or not at all."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from figures.checks import check_figure_path
from figures.records import FigurePath
from lab.storage.files import atomic_write

# Only global settings can say so: TrueType letters in a PDF, which publishers ask for, and names in an SVG that are
# the same in every run. Letters of an SVG become shapes, which look the same where the font is not installed.
_VECTOR_SETTINGS: Any = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "localization-heads"}
_NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}

_settings_lock = threading.Lock()


def write_figure(figure: Figure, path: FigurePath) -> None:
    """Write the figure in the format that the path ends in.

    Args:
        figure: The figure.
        path: Path that ends in `.png`, `.pdf` or `.svg`; None writes nothing.

    Raises:
        ValueError: If the path ends otherwise.
    """
    check_figure_path(path)
    if path is None:
        return
    kind = Path(path).suffix.lower()[1:]
    atomic_write(path, _png_bytes(figure) if kind == "png" else _vector_bytes(figure, kind))


def write_formats(figure: Figure, path: str | Path, formats: Sequence[str]) -> list[Path]:
    """Write the figure once for each format, beside each other.

    Args:
        figure: The figure.
        path: Path of the figure; its ending is replaced by each format's.
        formats: Such as `png`, `pdf`, `svg`.

    Returns:
        The paths written, in the order of `formats`.

    Raises:
        ValueError: If a format is none of these; then nothing is written.
    """
    paths = [Path(path).with_suffix("." + name.lower().lstrip(".")) for name in formats]
    for each in paths:
        check_figure_path(each)
    for each in paths:
        write_figure(figure, each)
    return paths


def _png_bytes(figure: Figure) -> bytes:
    """The figure as PNG without alpha, packed lightly: tight packing would take longer than the drawing."""
    picture = Image.fromarray(np.ascontiguousarray(agg_pixels(figure)[..., :3]))
    buffer = BytesIO()
    picture.save(buffer, format="png", compress_level=1, dpi=(figure.dpi, figure.dpi))
    return buffer.getvalue()


def agg_pixels(figure: Figure) -> np.ndarray:
    """The figure as `[height, width, 4]` uint8, red, green, blue and alpha."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _vector_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as PDF or SVG; pictures in it keep the figure's own pixels."""
    buffer = BytesIO()
    with _settings_lock, matplotlib.rc_context(_VECTOR_SETTINGS):
        logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # it tells of every letter that it keeps
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=_NO_DATE[kind])
    return buffer.getvalue()
