"""What a figure is given, beyond plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from PIL import Image

from figures.checks import check_map_shape
from lab.records import Grid

FigurePath = Optional[Union[str, Path]]
Box = tuple[float, float, float, float]


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
        check_map_shape(self.map[None], self.grid, f"the map of gallery entry {self.query!r}")
