"""What the grid allows: the best box of whole cells for every row, on the grid that was really applied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.records import Grid
from lab.statistics.ceiling import best_cell_box
from lab.storage.files import load_meta
from lab.storage.paths import safe_name
from scores.evaluation import Rules, ScoredRows, Summary, summarize
from scores.predictions import Prediction


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
    found: list[tuple[int, float, Sequence[float]]] = []
    for index, (truth, prediction) in enumerate(zip(rows.truths, rows.predictions)):
        grid = _grid_of(truth.id, prediction, Path(pred_root))
        size = prediction.image_size_wh
        if grid is None or size is None or truth.box_xyxy is None:
            continue
        iou, box = best_cell_box(truth.box_xyxy, grid, size)
        found.append((index, iou, box if iou > 0 else (np.nan,) * 4))
    if not found:
        raise ValueError(
            f"Expected {pred_root} to tell the grid of its predictions, but got none: it stands in <id>_bbox.json, and "
            "in <id>_meta.json beside attention files. Run stage=batch again, or leave --ceiling out."
        )
    chosen = rows.take([index for index, _, _ in found])
    boxes = np.array([box for _, _, box in found], dtype=np.float64)
    best = ScoredRows(
        chosen.truths,
        tuple(Prediction("box") for _ in found),
        chosen.truth_xyxy,
        boxes,
        np.array([iou for _, iou, _ in found]),
    )
    return best, len(rows.truths) - len(found)


def summarize_ceiling(rows: ScoredRows, pred_root: str | os.PathLike[str], rules: Rules) -> tuple[Summary, int]:
    """Scores of the best boxes of whole cells, and the number of rows without a known grid."""
    best, unknown = ceiling_rows(rows, pred_root)
    return summarize(best, rules), unknown


def _grid_of(sample_id: str, prediction: Prediction, root: Path) -> Optional[Grid]:
    stated: Any = (prediction.record or {}).get("grid")
    if stated is None:
        name = safe_name(sample_id)
        paths = (root / f"{name}_meta.json", root / name / f"{name}_meta.json")
        path = next((path for path in paths if path.is_file()), None)
        stated = None if path is None else load_meta(path).get("grid")
    return _as_grid(stated)


def _as_grid(stated: Any) -> Optional[Grid]:
    if not isinstance(stated, Mapping):
        return None
    try:
        numbers = {key: float(stated[key]) for key in ("x0", "y0", "cell_w", "cell_h")}
        return Grid(int(stated["rows"]), int(stated["cols"]), **numbers)
    except (KeyError, TypeError, ValueError):
        return None
