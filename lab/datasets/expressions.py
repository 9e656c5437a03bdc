"""What every format is read into: one record for each referring expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from lab.datasets.box_reading import Box

Key = Union[int, str]


@dataclass(frozen=True)
class Picture:
    """What a format says of the picture of an expression.

    Attributes:
        names: Names or relative paths under which it may lie on disk, the likeliest first.
        image_id: Number of the picture in its collection, such as COCO's, or None.
        size_wh: Width and height that the file states, or None.
        content: The encoded picture itself, where the file holds it.
    """

    names: tuple[str, ...] = ()
    image_id: Optional[Key] = None
    size_wh: Optional[tuple[int, int]] = None
    content: Optional[bytes] = None

    @property
    def key(self) -> Key:
        """What tells it from other pictures of the file."""
        if self.image_id is not None:
            return self.image_id
        return self.names[0] if self.names else id(self.content)


@dataclass(frozen=True)
class Expression:
    """One referring expression, with what it refers to as the file writes it.

    Attributes:
        prompt: The expression.
        picture: The picture that it is about.
        boxes: Its target boxes, four numbers each, as they stand in the file; none for an expression without a target.
        corners: `xyxy` or `xywh` where the file's own names say how the numbers are meant; else empty.
        dataset: Name of the data set, such as `refcoco`; empty where the file does not say.
        split: Name of the split, such as `testA`; empty where the file does not say.
        split_by: Who made the split (`unc`, `umd`, `google`), or empty.
        ref_id: Object that several expressions share, or None.
        sent_id: Number of the expression, or None.
        ann_id: Annotation of the target, or None.
        category_id: Category of the target, or None.
        segmentation: Polygons (lists of x, y, x, y, ...) or a run-length code of the target, or None.
        ignored: Polygons of regions that a mask's score leaves out.
        no_target: Whether the file says that the expression refers to nothing in the picture.
        extra: Further fields that the row keeps.
    """

    prompt: str
    picture: Picture
    boxes: tuple[Box, ...] = ()
    corners: str = ""
    dataset: str = ""
    split: str = ""
    split_by: str = ""
    ref_id: Optional[Key] = None
    sent_id: Optional[Key] = None
    ann_id: Optional[Key] = None
    category_id: Optional[Key] = None
    segmentation: Any = None
    ignored: tuple[Any, ...] = ()
    no_target: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
