"""Group `logic`: how heads are chosen and turned into a box."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.values import check_fields, choice, number, path

REGION_MODES = ("merged", "thumbnail", "tiles")
MASK_REGIONS = ("largest", "heaviest", "all")
HIGHEST_INDEX = 9999
"""Above any model's number of layers, and of heads in a layer."""


@dataclass(frozen=True)
class HeadIndex:
    """One attention head, 0-based.

    Attributes:
        layer: Layer of the language model.
        head: Head within the layer.
    """

    layer: int = number(0, 0, HIGHEST_INDEX)
    head: int = number(0, 0, HIGHEST_INDEX)

    def __post_init__(self) -> None:
        """Reject indices out of range."""
        check_fields(self, "logic.manual_heads")


def read_heads(value: Any) -> list[HeadIndex]:
    """Read heads as people write them: `L14H24`, or layer and head by name.

    Args:
        value: A list of `L14H24`, of mappings with `layer` and `head` or of records; or text with `L14H24` between
            commas; or None for no head.

    Returns:
        The heads, in order.

    Raises:
        ConfigError: An entry is none of these.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,]+", value.strip("[] \t")) if part]
    if not isinstance(value, (list, tuple)):
        raise _not_a_head(value)
    return [_read_head(entry) for entry in value]


def _read_head(entry: Any) -> HeadIndex:
    if isinstance(entry, HeadIndex):
        return entry
    if isinstance(entry, Mapping):
        return _read_named(entry)
    spelling = re.fullmatch(r"L(\d{1,5})H(\d{1,5})", str(entry).strip(), flags=re.IGNORECASE | re.ASCII)
    if spelling is None:
        raise _not_a_head(entry)
    return HeadIndex(int(spelling[1]), int(spelling[2]))


def _read_named(entry: Mapping[Any, Any]) -> HeadIndex:
    if set(entry) != {"layer", "head"} or any(type(number) is not int for number in entry.values()):
        raise _not_a_head(dict(entry))
    return HeadIndex(entry["layer"], entry["head"])


def _not_a_head(entry: Any) -> ConfigError:
    return ConfigError(
        "Expected logic.manual_heads to be a list of heads such as [L14H24, L14H13] "
        f"or [{{layer: 14, head: 24}}], but got {shorten(entry)}."
    )


@dataclass(frozen=True)
class ThresholdSettings:
    """Group `logic`, criterion 1: which heads attend to the image enough.

    Attributes:
        method: `chord`, the value at the elbow of the sorted attention sums.
        scope: Elbow of each `sample`'s sums, or of the `dataset`'s mean sums.
        value: A fixed threshold in place of the elbow, such as the data set's.
        min_keep: At least so many heads are ranked, filled up by attention sum.
    """

    method: str = choice("chord")
    scope: str = choice("sample", "dataset")
    value: Optional[float] = number(None, 0, 1)
    min_keep: int = number(3, 0, 1_000_000)

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "logic.threshold")


@dataclass(frozen=True)
class EntropySettings:
    """Group `logic`, criterion 2: how compact a head's map is.

    Attributes:
        binarize_threshold: A cell belongs to a component when it exceeds the map's mean by more than this.
        threshold_scale: `absolute`: `binarize_threshold` is attention; `relative`: it is a share of the map's mean.
        shares: Share of a component by attention `mass` or by `area`.
    """

    binarize_threshold: float = number(0.001, 0, 1)
    threshold_scale: str = choice("absolute", "relative")
    shares: str = choice("mass", "area")

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "logic.entropy")


@dataclass(frozen=True)
class SmoothingSettings:
    """Group `logic`: the Gaussian applied to each map before the maps are summed.

    Attributes:
        sigma: Standard deviation in cells of the grid; 0 for none.
        truncate: Radius of the kernel in standard deviations.
    """

    sigma: float = number(1.0, 0, 100)
    truncate: float = number(4.0, 0.5, 20)

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "logic.smoothing")


@dataclass(frozen=True)
class MaskSettings:
    """Group `logic`: from the combined map to the mask.

    Attributes:
        method: `mean_relu`, cells above the mean of the combined map.
        region: The box holds the `largest` region of the mask (by cells), the `heaviest` (by attention), or `all`.
        relative_threshold: The threshold is this many times the mean.
        edges: The box ends with whole `cells`, or within its outer cells as far as attention fills them, `fractional`.
        edge_most: The farthest that a fractional edge moves inwards, in cells.
        edge_power: How soon an outer line of cells counts as filled; the smaller, the sooner.
    """

    method: str = choice("mean_relu")
    region: str = choice(*MASK_REGIONS)
    relative_threshold: float = number(1.0, 0, 1000)
    edges: str = choice("cells", "fractional")
    edge_most: float = number(0.7, 0, 0.99)
    edge_power: float = number(0.25, 0.01, 100)

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "logic.mask")


@dataclass(frozen=True)
class SamSettings:
    """Group `logic`: the Segment Anything model of `logic.refine=sam`.

    Attributes:
        name: Directory of a SAM, SAM-HQ or SAM 2 checkpoint, or its repository, such as `facebook/sam-vit-huge`.
        prompt: The `box`, as the paper does; `points`, the attention's peak and others inside; or `box_points`, both.
        points: Points inside the object, at most.
    """

    name: Optional[str] = path()
    prompt: str = choice("box", "points", "box_points")
    points: int = number(3, 1, 64)

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "logic.sam")


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
        regions: Of a picture that the model sees in several parts: `merged` is one map of all, or the `thumbnail` or
            the `tiles` alone; a picture of one part is the same whatever is set.
        smoothing: Smoothing of each map.
        mask: From the combined map to the mask.
        refine: `none`, the mask is made of cells; `sam`, a Segment Anything model makes it. The box stays.
        sam: The Segment Anything model.
        manual_heads: Heads to prefer, in order, such as `[L14H24, L14H13]`; those that fail the criteria are left out.
        force_manual_heads: Use all of `manual_heads`, whatever the criteria say of them; the notes say what they fail.
        heads_file: Heads fixed once for the model, used unchanged for every image.
        force_heads_file: Use the heads file although it was made for another model or template.
        audit_margin: Least difference of mean IoU that the head audit counts as one.
    """

    top_k: int = number(3, 1, 10_000)
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    entropy: EntropySettings = field(default_factory=EntropySettings)
    bottom_row_filter: bool = True
    skip_layers: int = number(2, 0, 10_000)
    lowest_n: Optional[int] = number(None, 1, 1_000_000)
    regions: str = choice(*REGION_MODES)
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    refine: str = choice("none", "sam")
    sam: SamSettings = field(default_factory=SamSettings)
    manual_heads: Any = field(default_factory=list)
    force_manual_heads: bool = False
    heads_file: Optional[str] = path()
    force_heads_file: bool = False
    audit_margin: float = number(0.05, 0, 1)

    def __post_init__(self) -> None:
        """Reject values out of range, heads named twice, and two sources of heads at once; spell the heads one way."""
        check_fields(self, "logic")
        object.__setattr__(self, "manual_heads", read_heads(self.manual_heads))
        if len(set(self.manual_head_indices)) < len(self.manual_heads):
            raise ConfigError("Expected logic.manual_heads to name each head once, but got one twice.")
        if self.manual_heads and self.heads_file:
            raise ConfigError(
                "Expected either logic.manual_heads or logic.heads_file, but got both. Leave one of them out."
            )
        self._check_forced()
        if self.refine == "sam" and self.sam.name is None:
            raise ConfigError(
                "Expected logic.sam.name with logic.refine=sam, but got none. Name a directory or a repository on the "
                "hub, such as logic.sam.name=facebook/sam-vit-huge."
            )

    def _check_forced(self) -> None:
        if not self.force_manual_heads:
            return
        if not self.manual_heads:
            raise ConfigError(
                "Expected logic.manual_heads with logic.force_manual_heads=true, but got none. "
                "Name the heads, such as logic.manual_heads=[L14H24,L14H13]."
            )
        object.__setattr__(self, "top_k", max(self.top_k, len(self.manual_heads)))

    @property
    def manual_head_indices(self) -> tuple[tuple[int, int], ...]:
        """(layer, head) of each manual head."""
        return tuple((index.layer, index.head) for index in self.manual_heads)
