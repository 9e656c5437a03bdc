"""Writing files whole or not at all, and the small files of a result: analysis, box, mask, metadata, JSON lines."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Callable

import numpy as np

from foreign_files.bounded_json import JsonlLine, read_json, read_jsonl
from foreign_files.messages import shorten, shorten_reason
from lab.records import HeadChoice, HeadScore, Localization, Sample
from lab.storage.partial_files import partial_path
from lab.storage.paths import PathLike

__all__ = ["JsonlLine", "read_json", "read_jsonl"]  # readers of JSON, found here as well

logger = logging.getLogger(__name__)

# --------------------------------------------------------------------------------------------------------------------
# Writing whole files
# --------------------------------------------------------------------------------------------------------------------


def atomic_write(path: PathLike, content: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it appears whole or not at all, whatever happens meanwhile.

    Args:
        path: Where to write; missing directories are made.
        content: Bytes, text (as UTF-8), or a function that writes to a binary file object.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _fsync_directory(path.parent)


def _fsync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows cannot open a directory
        return
    try:
        os.fsync(descriptor)
    except OSError:  # nor can some network file systems sync one
        logger.debug("Could not sync directory %s.", directory)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------------------
# Analysis, box, mask, metadata
# --------------------------------------------------------------------------------------------------------------------


def save_analysis(path: PathLike, scores: Sequence[HeadScore]) -> None:
    """Write the ranked heads, best first, as a pickled list of dictionaries."""
    _save_pickle(path, [score._asdict() for score in scores])


def load_analysis(path: PathLike) -> list[HeadScore]:
    """Read the ranked heads, best first.

    Raises:
        ValueError: The file is damaged, holds code, or is not an analysis.
    """
    from foreign_files.safe_pickle import read_plain_pickle  # waits, since scores and the help page need none

    rows = read_plain_pickle(Path(path))
    try:
        if not isinstance(rows, list):
            raise TypeError(f"a {type(rows).__name__}")
        return [_read_score(row) for row in rows]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected {path} to be a list of heads with layer, head and scores, but got {shorten_reason(error)}. "
            "Analyze again."
        ) from error


def _read_score(row: Any) -> HeadScore:
    if not isinstance(row, Mapping):
        raise TypeError(f"the row {shorten(row)}")
    for key in ("layer", "head", "num_components"):
        if type(row[key]) is not int or row[key] < 0:
            raise ValueError(f"{key} {shorten(row[key])}")
    for key in ("attn_sum", "spatial_entropy"):
        if not isinstance(row[key], (int, float)):
            raise ValueError(f"{key} {shorten(row[key])}")
    return HeadScore(
        layer=row["layer"],
        head=row["head"],
        attn_sum=float(row["attn_sum"]),
        spatial_entropy=float(row["spatial_entropy"]),
        bottom_row_focus=bool(row["bottom_row_focus"]),
        num_components=row["num_components"],
    )


def bbox_record(sample: Sample, localization: Localization, choice: HeadChoice) -> dict[str, Any]:
    """Build what `<id>_bbox.json` says.

    Args:
        sample: What was asked.
        localization: Where it was found.
        choice: The heads that found it, and where they came from.

    Returns:
        JSON-ready dictionary; `bbox_xyxy` is half-open, in pixels of the original image, or None.
    """
    box = localization.box_xyxy
    record = {
        "id": sample.id,
        "image_file": sample.image_file,
        "query": sample.query,
        "bbox_xyxy": None if box is None else [float(edge) for edge in box],
        "image_size": list(localization.image_size_wh),
        "selected_heads": [score._asdict() for score in choice.heads],
        "heads_source": choice.source,
        "heads_notes": list(choice.notes),
    }
    plain: dict[str, Any] = to_plain(record)
    return plain


def save_bbox_json(
    path: PathLike,
    sample: Sample,
    localization: Localization,
    choice: HeadChoice,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `<id>_bbox.json`, the last file of an id, and return what it says."""
    record = {**bbox_record(sample, localization, choice), **to_plain(dict(extra or {}))}
    save_json(path, record)
    return record


def load_bbox_json(path: PathLike) -> dict[str, Any]:
    """Read `<id>_bbox.json`.

    Returns:
        The record; `bbox_xyxy` is a list of four finite numbers with x0 <= x1 and y0 <= y1, or None.

    Raises:
        ValueError: The file is not such a record.
    """
    try:
        record = read_json(path)
        if not isinstance(record, dict):
            raise TypeError(f"a {type(record).__name__}")
        box = record["bbox_xyxy"]
        record["bbox_xyxy"] = None if box is None else _read_box(box)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"Expected {path} to hold 'bbox_xyxy' as [x0, y0, x1, y1] or null, but got {shorten_reason(error)}. "
            "Visualize again."
        ) from error
    return record


def _read_box(value: Any) -> list[float]:
    numbers = isinstance(value, list) and all(type(edge) in (int, float) for edge in value)
    if not numbers or len(value) != 4:
        raise ValueError(f"the box {shorten(value)}")
    x0, y0, x1, y1 = box = [float(edge) for edge in value]
    if not (all(map(math.isfinite, box)) and x0 <= x1 and y0 <= y1):
        raise ValueError(f"the box {shorten(value)}")
    return box


def save_mask_png(path: PathLike, mask: np.ndarray) -> None:
    """Write a mask `[height, width]` bool as an 8-bit grey PNG of 0 and 255."""
    from PIL import Image

    image = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.uint8) * np.uint8(255))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue())


def save_meta_json(path: PathLike, meta: Mapping[str, Any]) -> None:
    """Write the metadata for people and other programs."""
    save_json(path, dict(meta))


def load_meta(path: PathLike) -> dict[str, Any]:
    """Read `<id>_meta.json`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"Expected {path} to hold a JSON object, but got a {type(value).__name__}. Collect again.")
    return value


def save_meta_pickle(path: PathLike, meta: Mapping[str, Any]) -> None:
    """Write the metadata as a pickle of plain data."""
    _save_pickle(path, to_plain(dict(meta)))


def _save_pickle(path: PathLike, value: Any) -> None:
    from foreign_files.safe_pickle import PICKLE_PROTOCOL

    atomic_write(path, pickle.dumps(value, protocol=PICKLE_PROTOCOL))


def save_json(path: PathLike, value: Any) -> None:
    """Write valid JSON (infinities and NaN become null), indented, in UTF-8."""
    text = json.dumps(_finite_or_null(to_plain(value)), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, (text + "\n").encode("utf-8", "backslashreplace"))


def to_plain(value: Any) -> Any:
    """Turn records, arrays and numpy scalars into what JSON and plain pickles can hold."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    for kind in (bool, int, float, str):  # of subclasses, such as version strings, only the plain value is kept
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --------------------------------------------------------------------------------------------------------------------
# JSONL
# --------------------------------------------------------------------------------------------------------------------


def append_jsonl_line(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append one object as a line; see `append_jsonl_lines`."""
    append_jsonl_lines(path, [row])


def append_jsonl_lines(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append each object as a line, in one write, so that lines of several writers never mix.

    Raises:
        OSError: The path is a symbolic link, which is not followed, or cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(_finite_or_null(to_plain(dict(row))), ensure_ascii=False) + "\n" for row in rows)
    with open(path, "ab", buffering=0, opener=_open_no_link) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        os.fsync(file.fileno())


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
