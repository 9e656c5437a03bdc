"""Masks of targets as run-length codes, by pycocotools: published scores are made with its filling of polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from lab.datasets.sources import MissingExtra


def to_rle(segmentation: Any, image_size_wh: Optional[tuple[int, int]]) -> Optional[dict[str, Any]]:
    """Turn a segmentation into COCO's compressed run-length code.

    Args:
        segmentation: Polygons, each a flat list x, y, x, y, ...; a run-length code, compressed or not; several of
            these, whose union is meant; or None.
        image_size_wh: Size of the picture, which polygons need.

    Returns:
        `{"size": [height, width], "counts": text}`, or None where there is nothing or no size is known.

    Raises:
        MissingExtra: pycocotools is not installed.
        ValueError: It is none of these.
    """
    if not segmentation:
        return None
    coder = _coder()
    if isinstance(segmentation, Mapping):
        code = _one_code(segmentation, coder)
    elif isinstance(segmentation, Sequence) and any(isinstance(part, Mapping) for part in segmentation):
        code = coder.merge([_any_code(part, image_size_wh, coder) for part in segmentation])
    elif image_size_wh is None:
        return None
    else:
        code = _from_polygons(segmentation, image_size_wh, coder)
    counts = code["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    return {"size": [int(side) for side in code["size"]], "counts": text}


def from_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decode a run-length code.

    Args:
        rle: `size` [height, width] with `counts`, compressed text or a list.

    Returns:
        `[height, width]` bool.

    Raises:
        MissingExtra: pycocotools is not installed.
        ValueError: It is no such code.
    """
    coder = _coder()
    return np.asarray(coder.decode(_one_code(rle, coder))).astype(bool)


def _any_code(part: Any, image_size_wh: Optional[tuple[int, int]], coder: Any) -> Any:
    if isinstance(part, Mapping):
        return _one_code(part, coder)
    if image_size_wh is None:
        raise ValueError("Expected the size of a picture with polygons to be known, but the file does not state it.")
    return _from_polygons(part, image_size_wh, coder)


def _from_polygons(polygons: Any, image_size_wh: tuple[int, int], coder: Any) -> Any:
    width, height = image_size_wh
    try:
        return coder.merge(coder.frPyObjects([[float(n) for n in polygon] for polygon in polygons], height, width))
    except Exception as error:  # pycocotools raises plain exceptions of several kinds
        raise ValueError(f"Expected polygons as flat lists of x, y, but got {str(polygons)[:40]!r}: {error}.") from None


def _one_code(rle: Mapping[str, Any], coder: Any) -> Any:
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, (list, tuple)):
            return coder.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
        return {"size": [height, width], "counts": counts.encode("ascii") if isinstance(counts, str) else bytes(counts)}
    except (KeyError, TypeError, ValueError, UnicodeEncodeError) as error:
        raise ValueError(f"Expected a run-length code with 'size' and 'counts', but got {error!r}.") from None


def _coder() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingExtra(
            "Expected pycocotools to be installed for masks, but it is not. Install it with: "
            "pip install -r requirements-datasets.txt, or leave masks out with --no-masks."
        ) from None
    return mask
