"""The frozen records that travel between the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

import numpy as np

from lab.grids import Grid as Grid  # handed on, with the records that it goes with
from lab.regions import Regions


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
        attention: `[layers, heads, visual_tokens]`, float32, after softmax; row-major over the grid where there is one
            region, else in the order of the prompt.
        grid: Where the visual tokens lie in the image; with several regions that of their merged map.
        image_size_wh: Width and height of the original image after EXIF rotation, in pixels.
        sample: What was asked of which image.
        meta: Everything else that is stored in the file (model_name, patch_size, prompt template, segments, ...).
        regions: Which token lies where, for models that cut pictures up or put separators between rows; None where the
            tokens are the grid's cells, one after the other.
        layers_without_map: 0-based layers without softmax attention to the image, whose rows mean nothing.
        num_merged: Regions that the grid was merged of; 1 for one as it stands.
    """

    attention: np.ndarray
    grid: Grid
    image_size_wh: tuple[int, int]
    sample: Sample
    meta: Mapping[str, Any] = field(default_factory=dict)
    regions: Optional[Regions] = None
    layers_without_map: tuple[int, ...] = ()
    num_merged: int = 1

    def __post_init__(self) -> None:
        """Check shape, grid and values."""
        if self.attention.ndim != 3:
            raise ValueError(
                "Expected attention to have the shape [layers, heads, visual_tokens], "
                f"but got {list(self.attention.shape)} for sample {self.sample.id!r}."
            )
        self._check_tokens()
        bad = ~np.isfinite(self.attention).all(axis=2)
        if bad.any():
            layer, head = (int(index) for index in np.argwhere(bad)[0])
            raise ValueError(
                f"Expected attention to be finite, but got NaN or inf in {int(bad.sum())} of {bad.size} heads of "
                f"sample {self.sample.id!r}, first layer {layer} head {head}. This usually means that the model "
                "overflowed in float16: collect again with model.dtype=bfloat16 or float32."
            )

    def _check_tokens(self) -> None:
        """Tokens, cells and layers fit one another."""
        tokens = self.attention.shape[2]
        if self.regions is None and tokens != self.grid.num_cells:
            raise ValueError(
                f"Expected as many visual tokens as grid cells ({self.grid.rows} x {self.grid.cols}), "
                f"but got {tokens} for sample {self.sample.id!r}."
            )
        if self.regions is not None and tokens != self.regions.num_tokens:
            raise ValueError(
                f"Expected as many visual tokens as its regions were made for ({self.regions.num_tokens}), "
                f"but got {tokens} for sample {self.sample.id!r}."
            )
        if any(not 0 <= layer < self.num_layers for layer in self.layers_without_map):
            raise ValueError(
                f"Expected layers_without_map to be layers from 0 to {self.num_layers - 1}, "
                f"but got {max(self.layers_without_map)} for sample {self.sample.id!r}."
            )

    def seen_as(self, mode: str = "merged") -> CollectedAttention:
        """The same with one grid, each of whose cells is one visual token, for all that reads maps.

        Args:
            mode: `merged`, `thumbnail` or `tiles`; see `lab.regions.Regions.chosen`.
        """
        if self.regions is None or self.regions.is_single:
            return self
        maps = self.regions.as_map(self.attention, mode)
        flat = maps.reshape(*maps.shape[:2], -1)
        merged = len(self.regions.chosen(mode))
        return replace(self, attention=flat, grid=self.regions.map_grid(mode), regions=None, num_merged=merged)

    @property
    def num_layers(self) -> int:
        """Number of layers of the language model."""
        return int(self.attention.shape[0])

    @property
    def num_heads(self) -> int:
        """Number of attention heads of each layer."""
        return int(self.attention.shape[1])


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
