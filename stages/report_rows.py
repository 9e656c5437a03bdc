"""What a directory of results says of each row, and of the rows that failed, for the report."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from lab.boxes import Box, box_iou
from lab.config.settings import LogicSettings, Settings
from lab.messages import shorten_reason
from lab.storage import files
from lab.storage.bounded_json import read_json, read_jsonl
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
        box_xyxy: Its box, or None.
        truth_xyxy: The true box, or None where it is not known.
        heads: The heads that were used.
        source: Where they came from.
        notes: Sentences about the choice.
        confidence: How sure the run was, or None.
    """

    id: str
    path: Optional[Path]
    picture: str
    box_xyxy: Optional[Box]
    truth_xyxy: Optional[Box]
    heads: tuple[Head, ...]
    source: str
    notes: tuple[str, ...]
    confidence: Optional[float]

    @property
    def iou(self) -> Optional[float]:
        """IoU of the box with the true one; 0 without a box, None without a true one."""
        if self.truth_xyxy is None:
            return None
        return 0.0 if self.box_xyxy is None else box_iou(self.box_xyxy, self.truth_xyxy)


def read_true_boxes(settings: Settings) -> dict[str, Box]:
    """The true boxes by id; none without `data.ground_truth`."""
    if settings.data.ground_truth is None:
        return {}
    truths, problems = read_truths(settings.data.ground_truth, settings.data.id_field)
    for problem in problems:
        logger.warning("Ground truth left out: %s", problem)
    return {truth.id: truth.box_xyxy for truth in truths}


def read_report_rows(directory: Path, truths: Mapping[str, Box]) -> tuple[list[ReportRow], list[tuple[str, str]]]:
    """Read the rows of a run that have both a box and an attention file.

    Args:
        directory: Directory of results.
        truths: True boxes by id.

    Returns:
        The rows, and the id and reason of each row that failed or whose result cannot be read.

    Raises:
        ValueError: There is no row.
    """
    rows, failures = [], _read_failures(directory)
    for path in list_attention_files(directory):
        record_path = OutputPaths.beside(path).bbox_json
        try:
            rows.append(_read_row(record_path, path, truths))
        except (OSError, ValueError) as error:
            failures.append((record_path.name, shorten_reason(error)))
    if not rows:
        raise ValueError(
            f"Expected {directory} to hold attention files with their _bbox.json, but got none. "
            "Make some with stage=batch, with storage.attention.save=true."
        )
    return rows, failures


def read_other_rows(directory: Path, truths: Mapping[str, Box]) -> list[ReportRow]:
    """The rows of another run, which needs no attention files."""
    rows = [_read_row(path, None, truths) for path in sorted(directory.glob("*_bbox.json"))]
    if not rows:
        raise ValueError(
            f"Expected report.against to hold results to compare with, but got no _bbox.json in {directory}. "
            "Name a model's directory of results."
        )
    return rows


def _read_row(record_path: Path, path: Optional[Path], truths: Mapping[str, Box]) -> ReportRow:
    record = files.load_bbox_json(record_path)
    box, confidence = record["bbox_xyxy"], record.get("confidence")
    try:
        sample_id = str(record["id"])
        heads = tuple((int(head["layer"]), int(head["head"])) for head in record["selected_heads"])
        notes = tuple(str(note) for note in record.get("heads_notes") or ())
        return ReportRow(
            id=sample_id,
            path=path,
            picture=str(record.get("image_file")),
            box_xyxy=None if box is None else (box[0], box[1], box[2], box[3]),
            truth_xyxy=truths.get(sample_id),
            heads=heads,
            source=str(record.get("heads_source")),
            notes=notes,
            confidence=float(confidence) if isinstance(confidence, (int, float)) else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"Expected {record_path} to name an id and selected_heads, but got {shorten_reason(error)}. Visualize again."
        ) from error


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
