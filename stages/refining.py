"""Where the heads look -> the same with the mask of a Segment Anything model, if that is asked for."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

from lab.records import CollectedAttention, Localization
from stages.plan import Plan


def refine_mask(
    collected: CollectedAttention, localization: Localization, plan: Plan, find_image: Callable[[], str]
) -> tuple[Localization, dict[str, Any]]:
    """Make the mask anew, as `logic.refine` says; the box stays.

    Args:
        collected: The attention, with its sample.
        localization: Where the heads look.
        plan: How to make the mask.
        find_image: Gives the path of the image.

    Returns:
        The localization with the new mask, or as it is where there is no box to start from; and what the box's record
        is to say of it.

    Raises:
        ValueError: The image cannot be read, or is of another size than when its attention was collected.
    """
    if plan.refiner is None:
        return localization, {}
    from vlm.images import load_image

    image_file = find_image()
    refined = plan.refiner.refine(image_file, lambda: load_image(image_file), localization, collected.grid)
    if refined is None:
        return localization, {"refine": None}
    return dataclasses.replace(localization, mask=refined.mask), {"refine": refined.details}
