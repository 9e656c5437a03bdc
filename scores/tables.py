"""One table of a whole run: what was asked, what was answered, by which heads, and how well."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.datasets.sources import MissingExtra
from lab.storage.files import atomic_write
from scores.evaluation import SampleScore, ScoredRows

_EDGES = ("x0", "y0", "x1", "y1")
COLUMNS = (
    "id",
    "prompt",
    "image_path",
    *(f"predicted_{edge}" for edge in _EDGES),
    "heads",
    "heads_source",
    "confidence",
    *(f"truth_{edge}" for edge in _EDGES),
    "status",
    "iou",
)


def write_predictions_table(path: Path, rows: ScoredRows, samples: Sequence[SampleScore]) -> None:
    """Write all predictions of a run as one table.

    Args:
        path: `.csv`, or `.parquet`, which needs pyarrow.
        rows: The rows beside their predictions.
        samples: Their scores.

    Raises:
        ValueError: The ending is another.
        MissingExtra: pyarrow is not installed.
    """
    records = [
        _record(truth.row, prediction.record or {}, sample)
        for truth, prediction, sample in zip(rows.truths, rows.predictions, samples)
    ]
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        atomic_write(path, text.getvalue())
    elif path.suffix == ".parquet":
        atomic_write(path, _parquet(records))
    else:
        raise ValueError(f"Expected --predictions-table to end in .csv or .parquet, but got {path.name!r}.")


def _record(row: Mapping[str, Any], record: Mapping[str, Any], sample: SampleScore) -> dict[str, Any]:
    heads = [f"L{head['layer']}H{head['head']}" for head in record.get("selected_heads") or ()]
    return {
        "id": sample.id,
        "prompt": record.get("query") or row.get("prompt") or "",
        "image_path": str(record.get("image_file") or row.get("image_path") or ""),
        **dict(zip((f"predicted_{edge}" for edge in _EDGES), sample.predicted_xyxy or (None,) * 4)),
        "heads": " ".join(heads),
        "heads_source": record.get("heads_source") or "",
        "confidence": record.get("confidence"),
        **dict(zip((f"truth_{edge}" for edge in _EDGES), sample.truth_xyxy)),
        "status": sample.status,
        "iou": sample.iou,
    }


def _parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra(
            "Expected pyarrow to be installed for a .parquet table, but it is not. "
            "Install it with: pip install -r requirements-datasets.txt, or write .csv."
        ) from None
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([dict(record) for record in records]), buffer)
    return buffer.getvalue()
