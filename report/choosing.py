"""Which samples of a run the report shows, and of which heads it keeps maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Optional

import numpy as np

from report.records import Head

SELECTIONS = ("spread", "worst", "best", "random")
CONTROL_SHARE = 0.25
"""Share of the kept heads that are drawn at random, as a control."""


def choose_samples(ious: Sequence[Optional[float]], select: str, count: int, seed: int) -> list[int]:
    """Choose which samples to show.

    Args:
        ious: IoU of every sample of the run, None where there is no true box.
        select: `worst` or `best` by IoU, `random`, or `spread`: evenly over the samples sorted by IoU (or, where none
            has a true box, over the order of the run).
        count: How many, at most.
        seed: Seed of the draw.

    Returns:
        Places in the run; by IoU where they were chosen by it, else in the order of the run.

    Raises:
        ValueError: `select` is unknown, or goes by IoU where there is none.
    """
    if select not in SELECTIONS:
        raise ValueError(f"Expected report.select to be one of {', '.join(SELECTIONS)}, but got {select!r}.")
    known = [place for place, iou in enumerate(ious) if iou is not None]
    if select in {"worst", "best"} and not known:
        raise ValueError(
            f"Expected ground truth for report.select={select}, but got none. Add data.ground_truth=..., "
            "or take report.select=random."
        )
    if select == "random":
        order = np.random.default_rng(seed).permutation(len(ious))
        return sorted(int(place) for place in order[:count])
    by_iou = sorted(known, key=lambda place: (float(ious[place] or 0.0), place))
    if select == "spread":
        return _spread(by_iou or list(range(len(ious))), count)
    return by_iou[:count] if select == "worst" else by_iou[::-1][:count]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """Evenly spaced members of a sequence, the first and the last among them."""
    if len(places) <= count:
        return list(places)
    steps = np.linspace(0, len(places) - 1, count)
    return [places[math.floor(step + 0.5)] for step in steps]


def choose_kept_heads(
    shape: tuple[int, int], wanted: Iterable[Head], count: int, seed: int
) -> tuple[list[int], list[int]]:
    """Choose the heads whose maps every picture keeps: the most wanted ones, and others drawn at random.

    Args:
        shape: Layers and heads of the model.
        wanted: Heads, most wanted first.
        count: How many fit.
        seed: Seed of the draw.

    Returns:
        Flat indices of all kept heads, ascending, and of those among them that were drawn at random.
    """
    total = shape[0] * shape[1]
    ranked = list(dict.fromkeys(layer * shape[1] + head for layer, head in wanted))
    drawn = [int(head) for head in np.random.default_rng(seed).permutation(total)]
    if count >= total:
        return list(range(total)), drawn
    for_wanted = ranked[: max(count - math.ceil(CONTROL_SHARE * count), 0)]
    controls = [head for head in drawn if head not in set(for_wanted)][: count - len(for_wanted)]
    return sorted([*for_wanted, *controls]), controls
