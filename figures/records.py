"""What a figure is given, beyond plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from PIL import Image

from figures.checks import check_map_shape
from lab.records import Grid, HeadChoice, Localization

FigurePath = Optional[Union[str, Path]]
Box = tuple[float, float, float, float]
Ends = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class TopHeads:
    """What the page of one picture shows.

    Attributes:
        maps: `[K, rows, cols]` attention of the chosen heads, smoothed as for the localization.
        shares: `[K]` share of each head's raw attention that lies on the picture, in [0, 1].
        peak: The largest value of the maps on the picture: the end of the one scale.
        grid: Where the maps lie in the picture.
        choice: The chosen heads with their scores.
        localization: Combined map (the sum of `maps`), mask and box.
        query: What was asked.
        sigma: Smoothing of the maps, in cells.
        truth_box_xyxy: Ground-truth box, if known.
        iou: IoU of the two boxes, if there are two.
        model_name: Name or path of the model, if known.
        top_k: How many heads were asked for, if known.
    """

    maps: np.ndarray
    shares: Sequence[float]
    peak: float
    grid: Grid
    choice: HeadChoice
    localization: Localization
    query: str
    sigma: float
    truth_box_xyxy: Box | None = None
    iou: float | None = None
    model_name: str | None = None
    top_k: int | None = None


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


@dataclass(frozen=True)
class AuditBar:
    """One way of choosing heads, or one kind of target, and its score.

    Attributes:
        label: Name for people, such as fixed heads, per image, random heads, own target.
        value: Its score.
        low: Lower end of its interval, or None where there is no interval.
        high: Upper end, likewise. The value may lie outside: intervals that correct for bias need not hold it.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Reject numbers that are none, half an interval, and one whose ends are the wrong way round."""
        ends = [end for end in (self.low, self.high) if end is not None]
        if not all(math.isfinite(number) for number in (self.value, *ends)):
            raise ValueError(f"Expected the bar {self.label!r} to have finite numbers, but got {self}. Leave it out.")
        if len(ends) == 1 or (ends and ends[0] > ends[1]):
            raise ValueError(
                f"Expected the bar {self.label!r} to have an interval with low <= high, "
                f"but got low={self.low}, high={self.high}. Give both ends, or neither."
            )

    @classmethod
    def with_ends(cls, label: str, value: float, low: float, high: float) -> AuditBar:
        """A bar with its interval, or without one where the ends are NaN, as for a single picture.

        Args:
            label: Name for people.
            value: Its score.
            low: Lower end, or NaN.
            high: Upper end, or NaN.

        Returns:
            The bar.
        """
        return cls(label, value) if math.isnan(low) and math.isnan(high) else cls(label, value, low, high)


@dataclass(frozen=True)
class AuditPage:
    """What the figure of an audit shows.

    Attributes:
        frequency: `[layers, heads]` selection frequency, in [0, 1].
        iou: `[layers, heads]` mean IoU of each head's own box with the ground truth.
        fixed: (layer, head) of the fixed heads.
        skip_layers: First layers that the rules leave out.
        correlation: How the two go together, in words.
        bars: The fixed heads first, then what they are compared with.
        control_bars: Scores for the phrase's own and another target, if that was measured.
        verdict: One sentence, or nothing.
        num_rows: Number of rows, if known.
        num_pictures: Number of pictures, if known.
        num_samples: Number of samples that the frequency is over, if known.
        interval_label: What the whiskers are.
        value_label: What the bars measure.
        control_title: Title of the control.
        control_label: What the control's bars measure.
    """

    frequency: np.ndarray
    iou: np.ndarray
    fixed: Sequence[tuple[int, int]]
    skip_layers: int
    correlation: str
    bars: Sequence[AuditBar]
    control_bars: Sequence[AuditBar]
    verdict: str
    num_rows: int | None
    num_pictures: int | None
    num_samples: int | None
    interval_label: str
    value_label: str
    control_title: str
    control_label: str

    def __post_init__(self) -> None:
        """Reject an audit without a bar, and fixed heads that there are not."""
        if not self.bars:
            raise ValueError("Expected at least one bar in the figure of an audit, but got none. Give bars.")
        layers, heads = self.frequency.shape
        for layer, head in self.fixed:
            if not (0 <= layer < layers and 0 <= head < heads):
                raise ValueError(
                    f"Expected fixed heads to lie in {layers} layers x {heads} heads, but got L{layer}H{head}."
                )
