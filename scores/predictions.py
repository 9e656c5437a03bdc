"""Files with predicted boxes -> what was predicted for each row, or why nothing was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.boxes import Box
from lab.storage.files import load_bbox_json
from lab.storage.paths import find_stem, safe_name
from scores.truths import Truth


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one row.

    Attributes:
        status: `box`, or why there is none: `null` (nothing found), `missing` (no file) or `unreadable`.
        box_xyxy: The box, half-open, in pixels; None without one.
        image_size_wh: Width and height of the image, where the file says them.
        problem: Why the file could not be read; empty otherwise.
    """

    status: str
    box_xyxy: Box | None = None
    image_size_wh: tuple[int, int] | None = None
    problem: str = ""


_ENDINGS = ("_bbox.json", "")  # a file, or a directory of the id's own


def read_predictions(pred_root: str | os.PathLike[str], truths: Sequence[Truth]) -> list[Prediction]:
    """One prediction for each row; an error if none of them is there."""
    root = Path(pred_root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected --pred-root to be a directory, but there is none at {root}. Check the path.")
    present = set(os.listdir(root))
    predictions = [_read_prediction(str(root), find_stem(truth.id, present, _ENDINGS), present) for truth in truths]
    if all(prediction.status == "missing" for prediction in predictions):
        raise ValueError(_explain_no_match(root, present, truths))
    return predictions


def _read_prediction(root: str, name: str, present: set[str]) -> Prediction:
    file_name = f"{name}_bbox.json"
    if file_name in present:
        path = os.path.join(root, file_name)
    elif name in present and os.path.isfile(os.path.join(root, name, file_name)):
        path = os.path.join(root, name, file_name)
    else:
        return Prediction("missing")
    try:
        record = load_bbox_json(path)
    except (ValueError, OSError) as error:
        return Prediction("unreadable", problem=str(error))
    size = record.get("image_size")
    image_size_wh = (size[0], size[1]) if isinstance(size, list) and len(size) == 2 else None
    if record["bbox_xyxy"] is None:
        return Prediction("null", None, image_size_wh)
    return Prediction("box", tuple(record["bbox_xyxy"]), image_size_wh)


def _explain_no_match(root: Path, present: set[str], truths: Sequence[Truth]) -> str:
    """Say what was looked for, what is there instead, and what may be meant."""
    wanted = ", ".join(f"{safe_name(truth.id)}_bbox.json" for truth in truths[:3])
    message = f"Expected {root} to hold predictions such as {wanted}, but got none for any of the {len(truths)} rows."
    others = sorted(name for name in present if name.endswith("_bbox.json"))
    if others:
        return f"{message} It holds {len(others)} others, such as {others[0]}: choose their field with --id-field."
    directories = [name for name in sorted(present) if (root / name).is_dir()]
    holders = [name for name in directories if any((root / name).glob("*_bbox.json"))]
    if holders:
        return f"{message} Its directory {holders[0]} holds some: did you mean --pred-root {root / holders[0]}?"
    return f"{message} It holds no *_bbox.json at all: run stage=batch first, or check the path."
