"""What the report says of the whole run: scores, and what `batch_analyze` left beside the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from foreign_files.bounded_json import read_json
from foreign_files.messages import shorten_reason
from lab.config.settings import Settings
from lab.statistics.bootstrap import cluster_interval, cluster_numbers
from report.records import Bar, DatasetPart, Head, Table
from stages.report_rows import ReportRow

IOU_THRESHOLDS = (0.25, 0.5, 0.75)


def score_bars(rows: Sequence[ReportRow]) -> list[Bar]:
    """Mean IoU and Acc@t over all rows with a true box, with 95 % intervals over pictures; none without such rows."""
    known = [(row.iou, row.picture) for row in rows if row.iou is not None]
    if not known:
        return []
    ious = np.array([iou for iou, _ in known], dtype=np.float64)
    clusters = cluster_numbers([picture for _, picture in known])
    measures = {"mean IoU": ious, **{f"Acc@{limit:g}": (ious >= limit).astype(np.float64) for limit in IOU_THRESHOLDS}}
    bars = []
    for name, values in measures.items():
        found = cluster_interval(values, clusters)
        note = f"{found.num_rows} rows of {found.num_clusters} pictures"
        bars.append(Bar(name, found.estimate, _end(found.low), _end(found.high), note))
    return bars


def compare_bars(rows: Sequence[ReportRow], others: Sequence[ReportRow]) -> list[Bar]:
    """Mean IoU of both runs and the mean of their differences, paired by row, over the rows that both have."""
    theirs = {row.id: row.iou for row in others}
    pairs = [
        (row.iou, iou, row.picture) for row in rows if row.iou is not None and (iou := theirs.get(row.id)) is not None
    ]
    if not pairs:
        return []
    here, there = (np.array(values, dtype=np.float64) for values in list(zip(*pairs))[:2])
    clusters = cluster_numbers([picture for _, _, picture in pairs])
    measures = {"mean IoU, this run": here, "mean IoU, the other": there, "difference": here - there}
    bars = []
    for name, values in measures.items():
        found = cluster_interval(values, clusters)
        note = f"{found.num_rows} rows of {found.num_clusters} pictures"
        bars.append(Bar(name, found.estimate, _end(found.low), _end(found.high), note))
    return bars


def _end(value: float) -> Optional[float]:
    return float(value) if np.isfinite(value) else None


def used_heads(rows: Sequence[ReportRow]) -> list[tuple[Head, int]]:
    """The heads that the rows of a run used and how often, most often first."""
    counts = Counter(head for row in rows for head in row.heads)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def read_dataset(
    directory: Path, rows: Sequence[ReportRow], mean_sums: np.ndarray, settings: Settings
) -> tuple[DatasetPart, list[Head], list[Head]]:
    """Gather what is known of the data set.

    Args:
        directory: Where `batch_analyze` wrote, if it did.
        rows: All rows of the run.
        mean_sums: `[layers, heads]` mean attention sums over the pictures of the report.
        settings: The whole configuration.

    Returns:
        What the page shows, the heads that are fixed for the data set (or were used most often), and heads by how
        often they were chosen.

    Raises:
        ValueError: A file that `batch_analyze` wrote cannot be read.
    """
    record = _read(directory / "batch_selected_heads.json")
    used = used_heads(rows)
    audit_record = _read(directory / "head_audit.json")
    audit, verdict = _audit_bars(audit_record)
    common: dict[str, Any] = {
        "mean_sums": mean_sums,
        "scores": score_bars(rows),
        "audit": audit,
        "verdict": verdict,
        "table": _ablation(audit_record),
    }
    if record is None:
        frequency = np.zeros(mean_sums.shape)
        for (layer, head), count in used:
            frequency[layer, head] = count / len(rows)
        source = (
            f"Frequencies: how many of the {len(rows)} rows used a head. Mean sums: over the pictures of this report. "
            "For the elbow and the audit of the whole data set, run stage=batch_analyze on this directory first."
        )
        fixed = [head for head, _ in used[: settings.logic.top_k]]
        return DatasetPart(len(rows), source, frequency=frequency, **common), fixed, [head for head, _ in used]
    return _recorded(record, common, used)


def _recorded(
    record: Mapping[str, Any], common: Mapping[str, Any], used: Sequence[tuple[Head, int]]
) -> tuple[DatasetPart, list[Head], list[Head]]:
    try:
        shape = (int(record["num_layers"]), int(record["num_heads"]))
        frequency = np.zeros(shape)
        chosen: list[Head] = []
        for row in record["counts"]:
            frequency[int(row["layer"]), int(row["head"])] = float(row["frequency"])
            chosen.append((int(row["layer"]), int(row["head"])))
        fixed = [(int(head["layer"]), int(head["head"])) for head in record["heads"]]
        count, threshold = int(record["num_samples"]), record["threshold"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(
            "Expected batch_selected_heads.json to hold counts and heads of the model, "
            f"but got {shorten_reason(error)}. Run stage=batch_analyze again."
        ) from error
    if frequency.shape != common["mean_sums"].shape:
        raise ValueError(
            f"Expected batch_selected_heads.json to be of a model of {common['mean_sums'].shape} layers and heads, "
            f"but got {shape}. Run stage=batch_analyze again."
        )
    source = (
        f"Frequencies and threshold: batch_selected_heads.json, {count} samples. "
        "Mean sums: over the pictures of this report."
    )
    limits: dict[str, Any] = {"threshold": _number(threshold.get("value")), "threshold_range": _range(threshold)}
    part = DatasetPart(count, source, frequency=frequency, **limits, **common)
    return part, fixed, [*chosen, *(head for head, _ in used)]


def _range(threshold: Mapping[str, Any]) -> Optional[tuple[float, float]]:
    """Lowest and highest threshold, where each sample has its own."""
    low, high = _number(threshold.get("min")), _number(threshold.get("max"))
    has_own = threshold.get("scope") == "sample" and _number(threshold.get("value")) is None
    return (low, high) if has_own and low is not None and high is not None else None


def _number(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else None


def _audit_bars(record: Optional[Mapping[str, Any]]) -> tuple[list[Bar], Optional[str]]:
    """The fixed heads and their rivals by mean IoU, and the verdict in a sentence."""
    if record is None:
        return [], None
    verdict = record.get("verdict")
    if not isinstance(record.get("scores"), Mapping):
        return [], str(verdict) if isinstance(verdict, str) else None
    rivals = [rival for rival in record.get("rivals") or () if isinstance(rival, Mapping)]
    entries = [("fixed heads", record["scores"]), *((str(rival.get("name")), rival) for rival in rivals)]
    bars = [bar for name, scores in entries if (bar := _audit_bar(name, scores.get("mean_iou"))) is not None]
    sentence = verdict.get("sentence") or verdict.get("text") if isinstance(verdict, Mapping) else verdict
    return bars, None if sentence is None else str(sentence)


def _audit_bar(name: str, interval: Any) -> Optional[Bar]:
    if not isinstance(interval, Mapping) or _number(interval.get("estimate")) is None:
        return None
    note = f"{interval.get('n')} rows of {interval.get('pictures')} pictures"
    return Bar(name, float(interval["estimate"]), _number(interval.get("low")), _number(interval.get("high")), note)


def _ablation(record: Optional[Mapping[str, Any]]) -> Optional[Table]:
    """Ways of choosing heads, with the heads that each gives and how often their box is right."""
    rows = [row for row in (record or {}).get("ablation") or () if isinstance(row, Mapping)]
    found = []
    for row in rows:
        heads = [str(head.get("head")) for head in row.get("heads") or () if isinstance(head, Mapping)]
        bar = _audit_bar("", row.get("acc@0.5") or row.get("Acc@0.5"))
        ends = "" if bar is None or bar.low is None or bar.high is None else f" [{bar.low:.3f}, {bar.high:.3f}]"
        found.append([str(row.get("name")), " ".join(heads), "-" if bar is None else f"{bar.value:.3f}{ends}"])
    return Table("Ways of choosing the heads", ["heads by", "heads", "Acc@0.5"], found) if found else None


def _read(path: Path) -> Optional[dict[str, Any]]:
    if not path.is_file():
        return None
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"Expected {path} to hold one JSON object, but got {type(record).__name__}.")
    return record
