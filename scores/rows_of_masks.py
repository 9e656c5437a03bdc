"""Masks of rows and of predictions, one row at a time, since a data set's masks do not fit into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.datasets.masks import from_rle
from lab.storage.paths import safe_name
from scores.mask_measures import MaskOverlap, gres_scores, lisa_scores, overlap_masks, summarize_masks
from scores.truths import Truth


@dataclass(frozen=True)
class MaskReport:
    """Scores of masks.

    Attributes:
        num_rows: Rows with a true mask.
        num_missing: Those without a predicted one, which count as empty.
        scores: Named scores of referring segmentation.
        lisa: As LISA counts them, where rows have regions to leave out.
        gres: As GRES counts them, where rows have no target.
        overlaps: Pixels of every row, by id.
    """

    num_rows: int
    num_missing: int
    scores: dict[str, float]
    lisa: Optional[dict[str, float]]
    gres: Optional[dict[str, Optional[float]]]
    overlaps: dict[str, MaskOverlap]


def score_masks(
    truths: Sequence[Truth], pred_root: str | os.PathLike[str], dataset_jsonl: str | os.PathLike[str]
) -> Optional[MaskReport]:
    """Compare `<id>_mask.png` of every row with its true mask, at the picture's own size.

    Args:
        truths: The rows; a true mask is a run-length code under `mask`, or a picture at `mask_path`; regions under
            `ignore_mask` count nowhere.
        pred_root: Directory of the predictions.
        dataset_jsonl: The rows' file, from which paths start.

    Returns:
        The scores; None where no row has a mask.

    Raises:
        ValueError: A mask is unreadable or has another size than its picture.
    """
    overlaps: dict[str, MaskOverlap] = {}
    missing, any_ignored = 0, False
    for truth in truths:
        true_mask = true_mask_of(truth, Path(dataset_jsonl).parent)
        if true_mask is None:
            continue
        predicted = _predicted_mask(truth.id, Path(pred_root))
        missing += predicted is None
        ignored = truth.row.get("ignore_mask")
        any_ignored = any_ignored or ignored is not None
        overlaps[truth.id] = overlap_masks(
            np.zeros_like(true_mask) if predicted is None else predicted,
            true_mask,
            None if ignored is None else from_rle(ignored),
        )
    if not overlaps:
        return None
    found = list(overlaps.values())
    return MaskReport(
        num_rows=len(found),
        num_missing=missing,
        scores=summarize_masks(found),
        lisa=lisa_scores(found) if any_ignored else None,
        gres=gres_scores(found) if any(not overlap.truth for overlap in found) else None,
        overlaps=overlaps,
    )


def true_mask_of(truth: Truth, directory: Path) -> Optional[np.ndarray]:
    """The true mask of a row, `[height, width]` bool; empty for one without a target; None where there is none.

    Raises:
        ValueError: It is unreadable.
    """
    code: Any = truth.row.get("mask")
    if code is not None:
        return from_rle(code)
    name = truth.row.get("mask_path")
    if isinstance(name, str) and name:
        return _read_mask(next((path for path in (directory / name, Path(name)) if path.is_file()), directory / name))
    if truth.row.get("no_target") and truth.image_size_wh is not None:
        width, height = (int(side) for side in truth.image_size_wh)
        return np.zeros((height, width), dtype=bool)
    return None


def _predicted_mask(sample_id: str, root: Path) -> Optional[np.ndarray]:
    name = safe_name(sample_id)
    paths = (root / f"{name}_mask.png", root / name / f"{name}_mask.png")
    found = next((path for path in paths if path.is_file()), None)
    return None if found is None else _read_mask(found)


def _read_mask(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > 127
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Expected a mask at {path}, but got none that can be read: {str(error)[:80]}.") from None
