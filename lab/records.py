"""The frozen records that travel between the stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import numpy as np


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


@dataclass(frozen=True)
class Sample:
    """One image with one query: a row of the input.

    Attributes:
        id: Identifier, any text; `lab.storage.paths.safe_name` turns it into a file name.
        image_file: Path of the image.
        query: The referring expression, as given.
        line_number: 1-based line of the JSONL file that it came from, or None for a single run.
        file_stem: What its files' names begin with, where that is not the safe name of its id; see
            `lab.storage.paths.distinct_name`.
        truth_xyxy: Its ground-truth box, half-open, in pixels of the original image, where it is known and wanted.
    """

    id: str
    image_file: str
    query: str
    line_number: Optional[int] = None
    file_stem: Optional[str] = None
    truth_xyxy: Optional[tuple[float, float, float, float]] = None

    def __post_init__(self) -> None:
        """Reject empty ids and queries."""
        if not self.id.strip():
            raise ValueError("Expected a sample's id to be non-empty text, but got nothing. Give every row an id.")
        if not self.query.strip():
            raise ValueError(
                f"Expected the query of sample {self.id!r} to be non-empty text, but got {self.query!r}. "
                "Say what to look for."
            )


@dataclass(frozen=True)
class CollectedAttention:
    """Attention of the last prompt token to the image, for one sample.

    Attributes:
        attention: `[layers, heads, visual_tokens]`, float32, after softmax, row-major over the grid.
        grid: Where the visual tokens lie in the image.
        image_size_wh: Width and height of the original image after EXIF rotation, in pixels.
        sample: What was asked of which image.
        meta: Everything else that is stored in the file (model_name, patch_size, prompt template, segments, ...).
    """

    attention: np.ndarray
    grid: Grid
    image_size_wh: tuple[int, int]
    sample: Sample
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shape, grid and values."""
        if self.attention.ndim != 3:
            raise ValueError(
                "Expected attention to have the shape [layers, heads, visual_tokens], "
                f"but got {list(self.attention.shape)} for sample {self.sample.id!r}."
            )
        if self.attention.shape[2] != self.grid.num_cells:
            raise ValueError(
                f"Expected as many visual tokens as grid cells ({self.grid.rows} x {self.grid.cols}), "
                f"but got {self.attention.shape[2]} for sample {self.sample.id!r}."
            )
        bad = ~np.isfinite(self.attention).all(axis=2)
        if bad.any():
            layer, head = (int(index) for index in np.argwhere(bad)[0])
            raise ValueError(
                f"Expected attention to be finite, but got NaN or inf in {int(bad.sum())} of {bad.size} heads of "
                f"sample {self.sample.id!r}, first layer {layer} head {head}. This usually means that the model "
                "overflowed in float16: collect again with model.dtype=bfloat16 or float32."
            )

    @property
    def num_layers(self) -> int:
        """Number of layers of the language model."""
        return self.attention.shape[0]

    @property
    def num_heads(self) -> int:
        """Number of attention heads of each layer."""
        return self.attention.shape[1]


class HeadScore(NamedTuple):
    """What the two criteria say of one head on one sample. Layer and head are 0-based.

    A tuple with names, since a sample has hundreds: it takes a third of the time that a dataclass does.

    Attributes:
        layer: Layer of the language model.
        head: Head within the layer.
        attn_sum: Sum of the head's attention over the image tokens, in [0, 1].
        spatial_entropy: Entropy over the components of its map, in nats; infinite when there is no component.
        bottom_row_focus: Whether the head mostly looks at the bottom row of the grid.
        num_components: Number of 8-connected components of its binarised map.
    """

    layer: int
    head: int
    attn_sum: float
    spatial_entropy: float
    bottom_row_focus: bool
    num_components: int

    @property
    def name(self) -> str:
        """Short name as the paper writes it, such as L14H24."""
        return f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class HeadChoice:
    """The heads used for one sample, and where they came from.

    Attributes:
        heads: The heads in the order of their use, with their scores on this sample.
        source: `automatic` (per sample), `manual` (logic.manual_heads) or `heads_file` (fixed for the model).
        notes: Sentences for people: rejected manual heads with the reason, what was filled up, what fell back.
    """

    heads: tuple[HeadScore, ...]
    source: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject unknown sources."""
        if self.source not in {"automatic", "manual", "heads_file"}:
            raise ValueError(
                f"Expected the source of heads to be automatic, manual or heads_file, but got {self.source!r}."
            )

    @property
    def indices(self) -> Sequence[tuple[int, int]]:
        """(layer, head) of each."""
        return tuple((score.layer, score.head) for score in self.heads)


@dataclass(frozen=True)
class Localization:
    """Where the chosen heads look.

    Attributes:
        combined_map: `[rows, cols]` sum of the smoothed maps of the chosen heads, float32.
        cell_mask: `[rows, cols]` bool, the cells that make the mask.
        mask: `[height, width]` bool, the same in pixels of the original image.
        box_xyxy: Half-open box in pixels of the original image, or None where the mask is empty.
        image_size_wh: Width and height of the original image.
    """

    combined_map: np.ndarray
    cell_mask: np.ndarray
    mask: np.ndarray
    box_xyxy: Optional[tuple[float, float, float, float]]
    image_size_wh: tuple[int, int]
