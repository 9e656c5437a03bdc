"""What a directory of results says of each row, and of the rows that failed, for the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from foreign_files.bounded_json import read_json, read_jsonl
from foreign_files.messages import shorten_reason
from lab.boxes import Box, box_iou
from lab.config.settings import LogicSettings, Settings
from lab.storage import files
from lab.storage.paths import OutputPaths, list_attention_files
from lab.storage.run_state import FAILURES_FILE
from scores.truths import read_truths

logger = logging.getLogger(__name__)

Head = tuple[int, int]


@dataclass(frozen=True)
class ReportRow:
    """One finished row of a run.

    Attributes:
        id: Its id.
        path: Its attention file; None in another run that is compared with.
        picture: Name of its picture.
        size_wh: Width and height of its picture, where they are recorded.
        box_xyxy: Its box, or None.
        heads: The heads that were used.
        source: Where they came from.
        notes: Sentences about the choice.
        confidence: How sure the run was, or None.
        truth_xyxy: The true box, or None where it is not known.
    """

    id: str
    path: Optional[Path]
    picture: str
    size_wh: Optional[tuple[int, int]]
    box_xyxy: Optional[Box]
    heads: tuple[Head, ...]
    source: str
    notes: tuple[str, ...]
    confidence: Optional[float]
    truth_xyxy: Optional[Box] = None

    @property
    def iou(self) -> Optional[float]:
        """IoU of the box with the true one; 0 without a box, None without a true one."""
        if self.truth_xyxy is None:
            return None
        return 0.0 if self.box_xyxy is None else box_iou(self.box_xyxy, self.truth_xyxy)


def with_true_boxes(rows: Sequence[ReportRow], settings: Settings) -> list[ReportRow]:
    """Give each row its true box, where `data.ground_truth` holds one; the sizes help to tell how boxes are written."""
    data = settings.data
    if data.ground_truth is None:
        return list(rows)
    sizes = {row.id: row.size_wh for row in rows if row.size_wh is not None}
    found = read_truths(
        data.ground_truth, data.id_field, box_format=data.box_format, sizes=sizes, option="data.box_format"
    )
    for problem in found.broken:
        logger.warning("Ground truth left out: %s", problem)
    boxes = {truth.id: truth.box_xyxy for truth in found.rows}
    return [dataclasses.replace(row, truth_xyxy=boxes.get(row.id)) for row in rows]


def read_report_rows(directory: Path) -> tuple[list[ReportRow], list[tuple[str, str]]]:
    """Read the rows of a run that have both a box and an attention file.

    Args:
        directory: Directory of results.

    Returns:
        The rows, and the id and reason of each row that failed or whose result cannot be read.

    Raises:
        ValueError: There is no row.
    """
    rows, failures = [], _read_failures(directory)
    for path in list_attention_files(directory):
        record_path = OutputPaths.beside(path).bbox_json
        try:
            rows.append(_read_row(record_path, path))
        except (OSError, ValueError) as error:
            failures.append((record_path.name, shorten_reason(error)))
    if not rows:
        raise ValueError(
            f"Expected {directory} to hold attention files with their _bbox.json, but got none. "
            "Make some with stage=batch, with storage.attention.save=true."
        )
    return rows, failures


def read_other_rows(directory: Path) -> list[ReportRow]:
    """The rows of another run, which needs no attention files."""
    rows = [_read_row(path, None) for path in sorted(directory.glob("*_bbox.json"))]
    if not rows:
        raise ValueError(
            f"Expected report.against to hold results to compare with, but got no _bbox.json in {directory}. "
            "Name a model's directory of results."
        )
    return rows


def _read_row(record_path: Path, path: Optional[Path]) -> ReportRow:
    record = files.load_bbox_json(record_path)
    box, confidence = record["bbox_xyxy"], record.get("confidence")
    try:
        heads = tuple((int(head["layer"]), int(head["head"])) for head in record["selected_heads"])
        notes = tuple(str(note) for note in record.get("heads_notes") or ())
        return ReportRow(
            id=str(record["id"]),
            path=path,
            picture=str(record.get("image_file")),
            box_xyxy=None if box is None else (box[0], box[1], box[2], box[3]),
            size_wh=_size(record.get("image_size")),
            heads=heads,
            source=str(record.get("heads_source")),
            notes=notes,
            confidence=float(confidence) if isinstance(confidence, (int, float)) else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {record_path} to name an id and selected_heads, but got {shorten_reason(error)}. "
            "Visualize again."
        ) from error


def _size(value: Any) -> Optional[tuple[int, int]]:
    is_size = isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
    return (value[0], value[1]) if is_size else None


def _read_failures(directory: Path) -> list[tuple[str, str]]:
    path = directory / FAILURES_FILE
    if not path.is_file():
        return []
    rows = [line.row for line in read_jsonl(path) if line.row is not None]
    return [(str(row.get("id") or f"line {row.get('line')}"), str(row.get("reason"))) for row in rows]


def settings_of_run(directory: Path, settings: Settings) -> Settings:
    """Take the rules by which a run chose heads and made boxes from its `run.json`, where it has one.

    Args:
        directory: Directory of results.
        settings: The configuration, for all that the run does not say.

    Returns:
        The configuration of the run.
    """
    path = directory / "run.json"
    if not path.is_file():
        return settings
    record = read_json(path)
    recorded = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(recorded, dict):
        raise ValueError(f"Expected {path} to hold the settings of a run, but got none. Run stage=batch again.")
    return dataclasses.replace(settings, logic=_logic_of_run(settings.logic, recorded))


def _logic_of_run(logic: LogicSettings, recorded: Mapping[str, Any]) -> LogicSettings:
    """The `logic` group as recorded; the heads are those that each row names."""
    changes: dict[str, Any] = {"manual_heads": [], "force_manual_heads": False, "heads_file": None}
    for entry in dataclasses.fields(logic):
        value = getattr(logic, entry.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [inner.name for inner in dataclasses.fields(value)]
            inside = {name: recorded[key] for name in names if (key := f"logic.{entry.name}.{name}") in recorded}
            changes[entry.name] = dataclasses.replace(value, **inside)
        elif f"logic.{entry.name}" in recorded and entry.name not in changes:
            changes[entry.name] = recorded[f"logic.{entry.name}"]
    return dataclasses.replace(logic, **changes)
