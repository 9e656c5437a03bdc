"""A box or points from attention -> the mask of a Segment Anything model, one picture after the other."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from lab.records import Grid, Localization
from refine.points import agreement, interior_points
from refine.sam import EmbeddedPicture, Sam, embed_picture, masks_from_boxes, masks_from_points

if TYPE_CHECKING:
    from PIL import Image

PROMPTS = ("box", "points", "box_points")
# Samples are finished in a few threads, so that two pictures may be in work where one ends and the next begins.
_PICTURES_KEPT = 2


@dataclass(frozen=True)
class Refined:
    """A mask that was made from a localization.

    Attributes:
        mask: `[height, width]` bool, in pixels of the image.
        details: What it was prompted with, ready for JSON.
    """

    mask: np.ndarray
    details: dict[str, Any]


@dataclass
class Refiner:
    """Prompts a model; the picture's embedding is kept, since all phrases about it follow one another.

    Attributes:
        load: Loads the model; called once, when the first mask is wanted.
        prompt: `box`, `points` or `box_points`.
        num_points: Points inside the object, at most.
    """

    load: Callable[[], Sam]
    prompt: str = "box"
    num_points: int = 3
    _sam: Sam | None = field(default=None, repr=False)
    _pictures: OrderedDict[str, EmbeddedPicture] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Reject unknown prompts."""
        if self.prompt not in PROMPTS or self.num_points < 1:
            raise ValueError(
                f"Expected the prompt to be one of {', '.join(PROMPTS)} with at least 1 point, "
                f"but got {self.prompt!r} with {self.num_points}. Set logic.sam.prompt and logic.sam.points."
            )

    def ready(self) -> Sam:
        """Load the model now, unless that is done, so that what is wrong with it shows before work begins."""
        with self._lock:
            return self._ready()

    def _ready(self) -> Sam:
        if self._sam is None:
            self._sam = self.load()
        return self._sam

    def refine(
        self, key: str, open_picture: Callable[[], Image.Image], localization: Localization, grid: Grid
    ) -> Refined | None:
        """Make the mask of one localization.

        Args:
            key: Name of the picture; what was made of it is used again for the same name.
            open_picture: Gives the picture, upright; not called where it is embedded already.
            localization: Where the heads look.
            grid: Where the cells of its map lie in the picture.

        Returns:
            The mask, or None where there is no box to prompt with.

        Raises:
            ValueError: The picture is of another size than the localization's.
        """
        if localization.box_xyxy is None:
            return None
        with self._lock:
            picture = self._picture(key, open_picture, localization.image_size_wh)
            if self.prompt == "box":
                return self._from_box(picture, np.array(localization.box_xyxy))
            return self._from_points(picture, localization, grid)

    def _picture(self, key: str, open_picture: Callable[[], Image.Image], size_wh: tuple[int, int]) -> EmbeddedPicture:
        if key not in self._pictures:
            self._pictures[key] = embed_picture(self._ready(), open_picture())
        self._pictures.move_to_end(key)
        while len(self._pictures) > _PICTURES_KEPT:
            self._pictures.popitem(last=False)
        picture = self._pictures[key]
        if picture.size_wh != size_wh:
            raise ValueError(
                f"Expected {key!r} to have {size_wh[0]} x {size_wh[1]} pixels as when its attention was collected, "
                f"but got {picture.size_wh[0]} x {picture.size_wh[1]}. Collect again."
            )
        return picture

    def _from_box(self, picture: EmbeddedPicture, box_xyxy: np.ndarray) -> Refined:
        masks, guesses = masks_from_boxes(self._ready(), picture, box_xyxy[None])
        return Refined(masks[0], self._details(guesses[0]))

    def _from_points(self, picture: EmbeddedPicture, found: Localization, grid: Grid) -> Refined:
        """Of the model's answers, the one that covers the attention best."""
        points_xy = interior_points(found.combined_map, found.cell_mask, grid, found.image_size_wh, self.num_points)
        boxes_xyxy = np.array([found.box_xyxy]) if self.prompt == "box_points" else None
        masks, guesses = masks_from_points(self._ready(), picture, points_xy[None], boxes_xyxy)
        agreements = agreement(masks[0], found.combined_map, found.cell_mask, grid)
        best = int(agreements.argmax())
        details = {"points_xy": points_xy.tolist(), "agreement": float(agreements[best])}
        return Refined(masks[0, best], {**self._details(guesses[0, best]), **details})

    def _details(self, guess: float) -> dict[str, Any]:
        return {"method": "sam", "model": self._ready().name, "prompt": self.prompt, "predicted_iou": float(guess)}
