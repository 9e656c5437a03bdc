"""Figures as files: the same figure gives the same bytes, whole or not at all."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from figures.records import FigurePath
from lab.storage.files import atomic_write

_pdf_settings_lock = threading.Lock()


def write_figure(figure: Figure, path: FigurePath) -> None:
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
