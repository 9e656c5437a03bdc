"""What the grid allows: the best box of whole cells for every row, on the grid that was really applied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.records import Grid
from lab.statistics.ceiling import best_cell_box, pointing_reachable
from lab.storage.files import load_meta
from lab.storage.paths import safe_name
from scores.evaluation import Rules, ScoredRows, Summary, summarize
from scores.predictions import Prediction
from scores.truths import Truth


def ceiling_rows(rows: ScoredRows, pred_root: str | os.PathLike[str]) -> tuple[ScoredRows, int]:
    """Replace every prediction by the best box of whole cells of its grid.

    Args:
        rows: The rows.
        pred_root: Directory of the predictions, whose `<id>_bbox.json` or `<id>_meta.json` hold the grid.

    Returns:
        The rows whose grid is known, and how many are not.

    Raises:
        ValueError: No grid is known.
    """
    found: list[tuple[int, float, Sequence[float], bool]] = []
    for index, (truth, prediction) in enumerate(zip(rows.truths, rows.predictions)):
        grid = _grid_of(truth.id, prediction, Path(pred_root))
        size = prediction.image_size_wh
        if grid is None or size is None or truth.box_xyxy is None:
            continue
        iou, box = best_cell_box(truth.box_xyxy, grid, size)
        found.append((index, iou, box if iou > 0 else (np.nan,) * 4, pointing_reachable(truth.box_xyxy, grid)))
    if not found:
        raise ValueError(
            f"Expected {pred_root} to tell the grid of its predictions, but got none: it stands in <id>_bbox.json, and "
            "in <id>_meta.json beside attention files. Run stage=batch again, or leave --ceiling out."
        )
    chosen = rows.take([index for index, *_ in found])
    boxes = np.array([box for _, _, box, _ in found], dtype=np.float64)
    best = ScoredRows(
        chosen.truths,
        tuple(Prediction("box", peak_xy=_point(truth, hit)) for truth, (*_, hit) in zip(chosen.truths, found)),
        chosen.truth_xyxy,
        boxes,
        np.array([iou for _, iou, *_ in found]),
    )
    return best, len(rows.truths) - len(found)


def _point(truth: Truth, can_be_hit: bool) -> tuple[float, float]:
    """A point within the target where the centre of some cell lies in it, else one outside of everything."""
    if not can_be_hit or truth.box_xyxy is None:
        return -1.0, -1.0
    return truth.box_xyxy[0], truth.box_xyxy[1]


def summarize_ceiling(rows: ScoredRows, pred_root: str | os.PathLike[str], rules: Rules) -> tuple[Summary, int]:
    """Scores of the best boxes of whole cells, and the number of rows without a known grid."""
    best, unknown = ceiling_rows(rows, pred_root)
    return summarize(best, rules), unknown


def _grid_of(sample_id: str, prediction: Prediction, root: Path) -> Optional[Grid]:
    """The grid that a prediction says it was made on, or that the metadata beside it say; None where neither does.

    Raises:
        ValueError: If the metadata are there and cannot be read.
    """
    stated: Any = (prediction.record or {}).get("grid")
    where = f"<id>_bbox.json of {sample_id!r}"
    if stated is None:
        name = safe_name(sample_id)
        paths = (root / f"{name}_meta.json", root / name / f"{name}_meta.json")
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        stated, where = load_meta(path).get("grid"), str(path)
    return None if stated is None else _as_grid(stated, where)


def _as_grid(stated: Any, where: str) -> Grid:
    try:
        numbers = {key: float(stated[key]) for key in ("x0", "y0", "cell_w", "cell_h")}
        return Grid(int(stated["rows"]), int(stated["cols"]), **numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {where} to hold a grid of six numbers, but got none that can be read ({type(error).__name__}). "
            "Run the row again."
        ) from error
