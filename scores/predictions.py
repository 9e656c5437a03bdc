"""Predicted boxes: from this tool's directories, and from the files of others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.boxes import Box
from lab.datasets.box_reading import AUTO, READINGS, check_box_format, read_boxes
from lab.storage.files import load_bbox_json, read_jsonl
from lab.storage.paths import find_stem, safe_name

BOX_KEYS = ("bbox_xyxy", "pred_bbox", "prediction", "box", "bbox")
ID_KEYS = ("id", "question_id", "image_id")
_ENDINGS = ("_bbox.json", "")  # a file, or a directory of the id's own
COCO_SCORE = 0.7
"""Boxes of a file with scores count from here on where several may be right, as in gRefCOCO's detection task."""


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one row.

    Attributes:
        status: `box`, or why there is none: `null` (nothing found), `missing` (no file) or `unreadable`.
        box_xyxy: The (best) box, half-open, in pixels.
        boxes_xyxy: All boxes, where there may be several.
        image_size_wh: Size of the picture that it refers to, where it says so.
        peak_xy: The point that the map is strongest at, where it says so.
        problem: A sentence on a file that could not be read.
        record: What the file says, for a table of all predictions.
    """

    status: str
    box_xyxy: Optional[Box] = None
    boxes_xyxy: tuple[Box, ...] = ()
    image_size_wh: Optional[tuple[int, int]] = None
    peak_xy: Optional[tuple[float, float]] = None
    problem: str = ""
    record: Optional[Mapping[str, Any]] = None


# ---------------------------------------------------------------------------------------------------------------------
# This tool's own
# ---------------------------------------------------------------------------------------------------------------------


def read_directory(pred_root: str | os.PathLike[str], ids: Sequence[str]) -> list[Prediction]:
    """Read one prediction for each id.

    Args:
        pred_root: Directory with `<id>_bbox.json`, or with one directory for each id that holds it.
        ids: The ids.

    Returns:
        The predictions, in the order of the ids.

    Raises:
        ValueError: None of them is there.
        FileNotFoundError: There is no such directory.
    """
    root = Path(pred_root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected --pred-root to be a directory, but there is none at {root}. Check the path.")
    present = set(os.listdir(root))
    predictions = [_read_prediction(str(root), find_stem(sample_id, present, _ENDINGS), present) for sample_id in ids]
    if all(prediction.status == "missing" for prediction in predictions):
        raise ValueError(_explain_no_match(root, present, ids))
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
    size, peak = _pair(record.get("image_size")), _pair(record.get("peak_xy"))
    size_wh = None if size is None else (int(size[0]), int(size[1]))
    if record["bbox_xyxy"] is None:
        return Prediction("null", None, (), size_wh, peak, record=record)
    box = tuple(record["bbox_xyxy"])
    return Prediction("box", box, (box,), size_wh, peak, record=record)


def _pair(value: Any) -> Optional[tuple[float, float]]:
    try:
        first, second = (float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return first, second


def _explain_no_match(root: Path, present: set[str], ids: Sequence[str]) -> str:
    """Say what was looked for, what is there instead, and what may be meant."""
    wanted = ", ".join(f"{safe_name(sample_id)}_bbox.json" for sample_id in ids[:3])
    message = f"Expected {root} to hold predictions such as {wanted}, but got none for any of the {len(ids)} rows."
    others = sorted(name for name in present if name.endswith("_bbox.json"))
    if others:
        return f"{message} It holds {len(others)} others, such as {others[0]}: choose their field with --id-field."
    directories = [name for name in sorted(present) if (root / name).is_dir()]
    holders = [name for name in directories if any((root / name).glob("*_bbox.json"))]
    if holders:
        return f"{message} Its directory {holders[0]} holds some: did you mean --pred-root {root / holders[0]}?"
    return f"{message} It holds no *_bbox.json at all: run stage=batch first, or check the path."


# ---------------------------------------------------------------------------------------------------------------------
# Files of others
# ---------------------------------------------------------------------------------------------------------------------


def read_predictions_file(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    sizes: Mapping[str, tuple[float, float]],
    *,
    id_field: Optional[str] = None,
    box_field: Optional[str] = None,
    box_format: str = AUTO,
) -> list[Prediction]:
    """Read predictions that another tool wrote: Ref-L4's list, COCO results, or JSON lines with any keys.

    Ref-L4's entries say how they are meant; COCO's results are [x, y, width, height]; of all others the frame is
    declared, or found for the whole file as for ground truth.

    Args:
        path: JSON list or JSON lines.
        ids: The ids of the rows, in whose order predictions are given back.
        sizes: Width and height of pictures by id, for shares and thousandths.
        id_field: Key of the id; None for `id`, `question_id` or `image_id`.
        box_field: Key of the box; None for one of the usual ones.
        box_format: How boxes are written, or `auto`.

    Returns:
        The predictions; `missing` where the file has none for an id.

    Raises:
        ValueError: The file is unreadable, an id stands in it twice without a score, or no id is known.
    """
    check_box_format(box_format, "--prediction-box-format")
    entries = _entries(Path(path))
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        grouped.setdefault(_entry_id(entry, id_field, path), []).append(entry)
    repeated = next((key for key, group in grouped.items() if len(group) > 1 and "score" not in group[0]), None)
    if repeated is not None:
        raise ValueError(f"Expected each id to stand once in {path}, but got {repeated!r} twice, without scores.")
    if not set(grouped) & set(ids):
        raise ValueError(
            f"Expected {path} to hold predictions for the data set's ids, such as {ids[0]!r}, but got none: it has "
            f"{', '.join(map(repr, list(grouped)[:3]))}. Name its key with --prediction-id-field."
        )
    boxes = _read_entries(entries, sizes, path, id_field, box_field, box_format)
    return [_from_entries(grouped.get(sample_id, ()), boxes) for sample_id in ids]


def _entries(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"Expected --predictions to be a file, but there is none at {path}. Check the path.")
    if path.suffix.lower() == ".jsonl":
        lines = list(read_jsonl(path))
        bad = next((line for line in lines if line.row is None), None)
        if bad is not None:
            raise ValueError(f"{path}: {bad.error}")
        return [line.row for line in lines if line.row is not None]
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be JSON, but got unreadable text: {str(error)[:120]}.") from None
    if not isinstance(content, list) or not all(isinstance(entry, Mapping) for entry in content):
        raise ValueError(f"Expected {path} to be a list of predictions, but got something else.")
    return content


def _entry_id(entry: Mapping[str, Any], id_field: Optional[str], path: str | os.PathLike[str]) -> str:
    keys = ID_KEYS if id_field is None else (id_field,)
    found = next((key for key in keys if entry.get(key) is not None), None)
    if found is None:
        raise ValueError(
            f"Expected every prediction of {path} to have {' or '.join(map(repr, keys))}, but got only "
            f"{', '.join(map(str, entry))[:120]}. Name the key with --prediction-id-field."
        )
    return str(entry[found])


def _read_entries(
    entries: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, tuple[float, float]],
    path: str | os.PathLike[str],
    id_field: Optional[str],
    box_field: Optional[str],
    box_format: str,
) -> dict[int, Box]:
    """Boxes by the identity of their entry; entries that say how they are meant go their own way."""
    found: dict[int, Box] = {}
    groups: dict[str, list[tuple[Mapping[str, Any], tuple[float, ...]]]] = {}
    for entry in entries:
        key = box_field or next((name for name in BOX_KEYS if name in entry), None)
        value = None if key is None else entry.get(key)
        if value is None or len(value) == 0:
            continue
        numbers = tuple(float(number) for number in value)
        if len(numbers) != 4:
            raise ValueError(f"Expected a box of {path} to be four numbers, but got {str(value)[:60]!r}.")
        groups.setdefault(_declared(entry, key or "", box_format), []).append((entry, numbers))
    unknown = (float("nan"), float("nan"))
    for declared, group in groups.items():
        image_sizes_wh = [sizes.get(_entry_id(entry, id_field, path), unknown) for entry, _ in group]
        read = read_boxes(
            np.array([numbers for _, numbers in group], dtype=np.float64),
            np.array(image_sizes_wh, dtype=np.float64),
            field="bbox",
            where=str(path),
            box_format=declared,
            option="--prediction-box-format",
        )
        usable = np.isfinite(read.boxes_xyxy).all(axis=1)
        for (entry, _), box, is_usable in zip(group, read.boxes_xyxy.tolist(), usable):
            if is_usable:
                found[id(entry)] = (box[0], box[1], box[2], box[3])
    return found


def _declared(entry: Mapping[str, Any], key: str, box_format: str) -> str:
    """What the file or the user says of the reading: Ref-L4's `format`, COCO's results, the name of the key."""
    if box_format != AUTO:
        return box_format
    stated = entry.get("format")
    if isinstance(stated, str) and stated in READINGS:
        return stated
    if "score" in entry and "image_id" in entry and key == "bbox":
        return "xywh"
    return "xyxy" if key == "bbox_xyxy" else AUTO


def _from_entries(group: Sequence[Mapping[str, Any]], boxes: Mapping[int, Box]) -> Prediction:
    """The best of an id's boxes; where there are scores, all from 0.7 on count as claimed."""
    if not group:
        return Prediction("missing")
    ranked = sorted(group, key=lambda entry: -float(entry.get("score", 1.0)))
    best = next((boxes[id(entry)] for entry in ranked if id(entry) in boxes), None)
    if best is None:
        return Prediction("null")
    claimed = [entry for entry in ranked if float(entry.get("score", 1.0)) >= COCO_SCORE and id(entry) in boxes]
    return Prediction("box", best, tuple(boxes[id(entry)] for entry in claimed))
