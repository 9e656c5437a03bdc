"""Where a grid of image patches lies in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Where the grid of image patches lies, in pixels of the original image (after EXIF rotation).

    Cell (r, c) covers ``[x0 + c * cell_w, x0 + (c + 1) * cell_w)`` in x and the same with ``y0`` and ``cell_h`` in y.
    A grid made from a padded square reaches over the edges of the image; a centre crop leaves some of it out.

    Attributes:
        rows: Number of rows of cells.
        cols: Number of columns of cells.
        x0: Left edge of the grid.
        y0: Top edge of the grid.
        cell_w: Width of a cell.
        cell_h: Height of a cell.
    """

    rows: int
    cols: int
    x0: float
    y0: float
    cell_w: float
    cell_h: float

    def __post_init__(self) -> None:
        """Reject grids without cells or without extent."""
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"Expected a grid to have at least 1 row and 1 column, but got {self.rows} x {self.cols}.")
        numbers = (self.x0, self.y0, self.cell_w, self.cell_h)
        if not all(math.isfinite(number) for number in numbers) or self.cell_w <= 0 or self.cell_h <= 0:
            raise ValueError(
                "Expected a grid's x0, y0 to be finite and cell_w, cell_h to be finite and above 0, "
                f"but got x0={self.x0}, y0={self.y0}, cell_w={self.cell_w}, cell_h={self.cell_h}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.cols

    @property
    def num_cells(self) -> int:
        """Number of cells, which is the number of visual tokens."""
        return self.rows * self.cols

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """The whole grid as a half-open box in pixels of the original image; not clipped to the image."""
        return self.x0, self.y0, self.x0 + self.cols * self.cell_w, self.y0 + self.rows * self.cell_h
