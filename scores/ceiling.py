"""What the grid of the model's patches allows at best, for any run with ground truth."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab.records import Grid
from lab.statistics.ceiling import best_cell_box, pointing_reachable
from lab.storage.paths import safe_name
from scores.truths import Truth

IOU_THRESHOLDS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Ceiling:
    """The best that boxes of whole cells can score.

    Attributes:
        ious: `[rows]` IoU of the best box of each row whose grid is known.
        reachable: `[rows]` bool, whether the centre of some cell lies in the target.
        num_unknown: Rows whose grid is not known, since their metadata file is missing or holds none.
    """

    ious: np.ndarray
    reachable: np.ndarray
    num_unknown: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        if not len(self.ious):
            return {"num_rows": 0, "num_rows_without_grid": self.num_unknown}
        return {
            "num_rows": len(self.ious),
            "num_rows_without_grid": self.num_unknown,
            "mean_iou": float(self.ious.mean()),
            **{f"Acc@{limit:g}": float((self.ious >= limit).mean()) for limit in IOU_THRESHOLDS},
            "pointing": float(self.reachable.mean()),
        }

    def sentence(self) -> str:
        """One line for people."""
        record = self.to_dict()
        if not record["num_rows"]:
            return (
                f"ceiling: the grid of none of {self.num_unknown} rows is known; keep <id>_meta.json beside the boxes."
            )
        scores = ", ".join(f"{name} {record[name]:.4f}" for name in record if name.startswith("Acc"))
        left_out = f"; {self.num_unknown} more rows have no grid" if self.num_unknown else ""
        return (
            f"ceiling: the best boxes of whole cells reach mean IoU {record['mean_iou']:.4f}, {scores}, and a cell's "
            f"centre hits {record['pointing']:.4f} of the targets ({record['num_rows']} rows{left_out})."
        )


def read_ceiling(pred_root: str | os.PathLike[str], truths: Sequence[Truth]) -> Ceiling:
    """Search the best box of whole cells of every row, on the grid that was applied to its picture.

    Args:
        pred_root: Directory with `<id>_meta.json`, or with one directory for each id that holds it.
        truths: The rows.

    Returns:
        The ceiling over the rows whose metadata hold a grid.
    """
    ious, reachable = [], []
    for truth in truths:
        found = _grid_of(Path(pred_root), safe_name(truth.id))
        if found is not None:
            ious.append(best_cell_box(truth.box_xyxy, *found)[0])
            reachable.append(pointing_reachable(truth.box_xyxy, found[0]))
    return Ceiling(np.array(ious), np.array(reachable), len(truths) - len(ious))


def _grid_of(root: Path, name: str) -> tuple[Grid, tuple[int, int]] | None:
    """Grid and image size from a row's metadata; None where there are none.

    Raises:
        ValueError: If the file is there and no metadata.
    """
    path = next((p for p in (root / f"{name}_meta.json", root / name / f"{name}_meta.json") if p.is_file()), None)
    if path is None:
        return None
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta.get("grid") is None:
            return None
        width, height = meta["image_size"]
        return Grid(**meta["grid"]), (int(width), int(height))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"Expected {path} to hold metadata with a grid and an image size, but got none that can be read "
            f"({type(error).__name__}). Run the row again."
        ) from error
