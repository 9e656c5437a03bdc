"""Group `logic`: how heads are chosen and turned into a box."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Optional

from lab.config.errors import ConfigError
from lab.config.values import check_choice, check_range

THRESHOLD_METHODS = ("chord",)
THRESHOLD_SCOPES = ("sample", "dataset")
ENTROPY_SHARES = ("mass", "area")
MASK_METHODS = ("mean_relu",)
MASK_REGIONS = ("largest", "heaviest", "all")


@dataclass(frozen=True)
class HeadIndex:
    """One attention head, 0-based.

    Attributes:
        layer: Layer of the language model.
        head: Head within the layer.
    """

    layer: int = 0
    head: int = 0

    def __post_init__(self) -> None:
        """Reject negative indices."""
        check_range("logic.manual_heads layer", self.layer, 0)
        check_range("logic.manual_heads head", self.head, 0)


@dataclass(frozen=True)
class ThresholdSettings:
    """Group `logic`, criterion 1: which heads attend to the image enough.

    Attributes:
        method: `chord`, the value at the elbow of the sorted attention sums.
        scope: Elbow of each `sample`'s sums, or of the `dataset`'s mean sums.
        value: A fixed threshold in place of the elbow, such as the data set's.
        min_keep: At least so many heads are ranked, filled up by attention sum.
    """

    method: str = "chord"
    scope: str = "sample"
    value: Optional[float] = None
    min_keep: int = 3

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_choice("logic.threshold.method", self.method, THRESHOLD_METHODS)
        check_choice("logic.threshold.scope", self.scope, THRESHOLD_SCOPES)
        if self.value is not None:
            check_range("logic.threshold.value", self.value, 0, 1)
        check_range("logic.threshold.min_keep", self.min_keep, 0)


@dataclass(frozen=True)
class EntropySettings:
    """Group `logic`, criterion 2: how compact a head's map is.

    Attributes:
        binarize_threshold: A cell belongs to a component when it exceeds the map's mean by more than this.
        shares: Share of a component by attention `mass` or by `area`.
    """

    binarize_threshold: float = 0.001
    shares: str = "mass"

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_range("logic.entropy.binarize_threshold", self.binarize_threshold, 0, 1)
        check_choice("logic.entropy.shares", self.shares, ENTROPY_SHARES)


@dataclass(frozen=True)
class SmoothingSettings:
    """Group `logic`: the Gaussian applied to each map before the maps are summed.

    Attributes:
        sigma: Standard deviation in cells of the grid; 0 for none.
        truncate: Radius of the kernel in standard deviations.
    """

    sigma: float = 1.0
    truncate: float = 4.0

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_range("logic.smoothing.sigma", self.sigma, 0)
        check_range("logic.smoothing.truncate", self.truncate, 0.5)


@dataclass(frozen=True)
class MaskSettings:
    """Group `logic`: from the combined map to the mask.

    Attributes:
        method: `mean_relu`, cells above the mean of the combined map.
        region: The box holds the `largest` region of the mask (by cells), the `heaviest` (by attention), or `all`.
        relative_threshold: The threshold is this many times the mean.
    """

    method: str = "mean_relu"
    region: str = "largest"
    relative_threshold: float = 1.0

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_choice("logic.mask.method", self.method, MASK_METHODS)
        check_choice("logic.mask.region", self.region, MASK_REGIONS)
        check_range("logic.mask.relative_threshold", self.relative_threshold, 0)


@dataclass(frozen=True)
class LogicSettings:
    """Group `logic`: how heads are chosen and turned into a box.

    Attributes:
        top_k: Number of heads to combine.
        threshold: Criterion 1.
        entropy: Criterion 2.
        bottom_row_filter: Leave out heads that look at the bottom row of the grid.
        skip_layers: The first layers, left out.
        lowest_n: Heads counted per sample for the selection frequency; null for `top_k`.
        smoothing: Smoothing of each map.
        mask: From the combined map to the mask.
        manual_heads: Ordered heads to prefer; those that fail the criteria are passed over.
        heads_file: Heads fixed once for the model, used unchanged for every image.
        force_heads_file: Use the heads file although it was made for another model or template.
    """

    top_k: int = 3
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    entropy: EntropySettings = field(default_factory=EntropySettings)
    bottom_row_filter: bool = True
    skip_layers: int = 2
    lowest_n: Optional[int] = None
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    manual_heads: List[HeadIndex] = field(default_factory=list)
    heads_file: Optional[str] = None
    force_heads_file: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range, heads named twice, and two sources of heads at once."""
        check_range("logic.top_k", self.top_k, 1)
        check_range("logic.skip_layers", self.skip_layers, 0)
        if self.lowest_n is not None:
            check_range("logic.lowest_n", self.lowest_n, 1)
        if len(set(self.manual_head_indices)) < len(self.manual_heads):
            raise ConfigError("Expected logic.manual_heads to name each head once, but got one twice.")
        if self.manual_heads and self.heads_file:
            raise ConfigError(
                "Expected either logic.manual_heads or logic.heads_file, but got both. Leave one of them out."
            )

    @property
    def manual_head_indices(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of each manual head."""
        return tuple((index.layer, index.head) for index in self.manual_heads)
