"""Attention files: the attention of one sample and how it was made, written whole and read without running code."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from foreign_files.messages import shorten, shorten_reason
from lab.grids import Grid
from lab.records import CollectedAttention, Sample
from lab.storage.files import atomic_write, to_plain
from lab.storage.paths import PathLike, attention_stem, find_attention_file, is_file
from lab.storage.region_meta import check_grid, layers_from_meta, regions_from_meta, regions_meta

logger = logging.getLogger(__name__)

ATTENTION_DTYPES = ("float16", "bfloat16", "float32")

# Attention in float16 is almost noise to gzip: level 1 saves 16 %, level 9 saves 17 % at twice the time.
GZIP_LEVEL = 1

# Pillow opens no larger picture unless it is told to, so that no honest file speaks of one.
MAX_IMAGE_PIXELS = 178_956_970
MAX_IMAGE_SIDE = 1_000_000
# What a head's sum may exceed 1 by: attention is often computed in bfloat16, whose numbers are rounded by up to 2^-9 of
# their size, and the smallest numbers of float16 by up to 2^-25.
SUM_TOLERANCE = 2.0**-8
TOKEN_TOLERANCE = 2.0**-25

_UNKNOWN_QUERY = "(not recorded)"
_ASSUMED_PATCH_SIZE = 14
_MAX_TEXT = 100_000
_MAX_META_ELEMENTS = 1_000_000


def build_meta(collected: CollectedAttention, dtype: str) -> dict[str, Any]:
    """Build the metadata that is stored with the attention, as plain data.

    Args:
        collected: One sample's attention; its own `meta` is kept whole.
        dtype: Name of the stored number type.

    Returns:
        JSON-ready dictionary.
    """
    meta = dict(collected.meta)
    meta.update(
        id=collected.sample.id,
        image_file=collected.sample.image_file,
        query=collected.sample.query,
        image_size=list(collected.image_size_wh),
        vis_len=collected.attention.shape[2],
        grid=asdict(collected.grid),
        **regions_meta(collected),
        num_layers=collected.num_layers,
        num_heads=collected.num_heads,
        attn_dtype=dtype,
    )
    plain: dict[str, Any] = to_plain(meta)
    return plain


def save_attention(
    path: PathLike,
    collected: CollectedAttention,
    *,
    dtype: str = "float16",
    compress: bool = True,
    level: int = GZIP_LEVEL,
) -> dict[str, Any]:
    """Write the attention file, and remove its twin (`.pkl` against `.pkl.gz`) so that no stale one is ever read.

    Equal attention and metadata give equal bytes.

    Args:
        path: Where to write; it should end in `.pkl.gz` if compressed, else in `.pkl` (see `OutputPaths.attention`).
        collected: Attention `[layers, heads, visual_tokens]`; stored as a tensor `[layers, heads, 1, visual_tokens]`.
        dtype: Number type of the stored tensor: float16, bfloat16 or float32.
        compress: Whether to gzip.
        level: gzip level.

    Returns:
        The stored metadata.

    Raises:
        ValueError: The dtype is not one of the three.
    """
    from foreign_files.pickle_writer import dump_attention  # what pickles need waits: help and scores need none

    if dtype not in ATTENTION_DTYPES:
        raise ValueError(f"Expected the stored dtype to be one of {', '.join(ATTENTION_DTYPES)}, but got {dtype!r}.")
    path = Path(path)
    meta = build_meta(collected, dtype)
    attention = np.ascontiguousarray(collected.attention[:, :, None, :], dtype=np.float32)
    data = dump_attention(attention, dtype, meta)
    atomic_write(path, _gzip(data, level) if compress else data)
    twin = path.with_name(attention_stem(path) + (".pkl" if compress else ".pkl.gz"))
    if twin != path:
        twin.unlink(missing_ok=True)
    return meta


def load_attention(path: PathLike, image_file: str | None = None) -> CollectedAttention:
    """Read an attention file without running any code that it may hold.

    Files of the public tool are read too: a bare tensor, or metadata without a grid. For them the geometry of LLaVA-1.5
    is assumed (image padded to a square, square grid); a warning and `meta["assumed"]` say so.

    Args:
        path: `.pkl` or `.pkl.gz`; its twin is taken where it is missing.
        image_file: Image to use instead of the one in the metadata.

    Returns:
        Attention `[layers, heads, visual_tokens]` float32 with grid, image size and metadata.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds code, or is not an attention file.
    """
    from foreign_files.safe_pickle import read_plain_pickle

    path = find_attention_file(path)
    attention, meta = _split(read_plain_pickle(path), path)
    _check_attention(attention, path)
    return _to_collected(attention, meta, path, image_file)


def _split(content: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Give attention `[layers, heads, visual_tokens]` and metadata of what a file holds."""
    if not isinstance(content, Mapping):
        content = {"attn": content}
    if "attn" not in content:
        raise ValueError(
            f"Expected {path} to hold the key 'attn', but got the keys {shorten(list(content))}. "
            "Give an attention file written by stage=collect, not an analysis or metadata file."
        )
    meta = content.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise ValueError(f"Expected 'meta' in {path} to be a dictionary, but got {type(meta).__name__}. Collect again.")
    _check_meta(meta, path)
    return _to_attention_array(content["attn"], path), dict(meta)


def round_attention(attention: np.ndarray, dtype: str) -> np.ndarray:
    """Round attention to what a file of this dtype will hold, so that fresh and stored attention give equal results.

    Args:
        attention: Any shape, float32.
        dtype: float16, bfloat16 or float32.

    Returns:
        A float32 array of the same shape.
    """
    from foreign_files.pickle_writer import round_to_bfloat16_bits

    if dtype == "float32":
        return attention
    if dtype == "float16":
        return attention.astype(np.float16).astype(np.float32)
    return (round_to_bfloat16_bits(attention).astype(np.uint32) << 16).view(np.float32)


def _gzip(data: bytes, level: int) -> bytes:
    """Deflate to one gzip member without time or name in its header, so that equal data give equal bytes."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, 31)
    return deflater.compress(data) + deflater.flush()


def _to_attention_array(value: Any, path: Path) -> np.ndarray:
    """Turn a stored tensor or array `[L, H, 1, V]` or `[L, H, V]` into `[L, H, V]` float32."""
    from foreign_files.arrays import to_float32

    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(f"Expected the attention in {path} to be a tensor of numbers, but got {type(value).__name__}.")
    if value.ndim == 4 and value.shape[2] == 1:
        value = value[:, :, 0, :]
    if value.ndim != 3 or 0 in value.shape:
        raise ValueError(
            f"Expected the attention in {path} to have the shape [layers, heads, 1, visual_tokens], "
            f"but got {list(value.shape)}."
        )
    return to_float32(value)


def _check_attention(attention: np.ndarray, path: Path) -> None:
    """Refuse numbers that attention after softmax cannot be, by layer and head.

    Args:
        attention: `[layers, heads, visual_tokens]`, float32.
        path: The file, for messages.
    """
    limit = 1 + SUM_TOLERANCE + attention.shape[2] * TOKEN_TOLERANCE
    with np.errstate(invalid="ignore"):
        sums = attention.sum(axis=2, dtype=np.float64)
    lowest = attention.min(axis=2)  # NaN and inf show in the sum, or here
    for bad, what, why in (
        (~(np.isfinite(sums) & np.isfinite(lowest)), "finite", "NaN or inf"),
        (lowest < 0, "at least 0", "negative numbers"),
        (attention.max(axis=2) > limit, "at most 1", "numbers above 1"),
        (sums > limit, "at most 1 in sum over the image", "a larger sum"),
    ):
        if bad.any():
            layer, head = (int(index) for index in np.argwhere(bad)[0])
            raise ValueError(
                f"Expected the attention in {path} to be {what}, but got {why} in {int(bad.sum())} of {bad.size} "
                f"heads, first L{layer}H{head} (sum {sums[layer, head]:.6g}, lowest {lowest[layer, head]:.6g}). "
                "It is not attention after softmax, or the model overflowed in float16: collect again, "
                "with model.dtype=bfloat16 or float32."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Metadata
# ---------------------------------------------------------------------------------------------------------------------


def _check_meta(meta: Mapping[Any, Any], path: Path) -> None:
    """Refuse metadata whose text or arrays are too large to be any, or of types that they cannot be."""
    for key in ("id", "image_file", "query", "model_name", "prompt_template"):
        value = meta.get(key)
        if value is not None and (not isinstance(value, (str, int, float)) or len(str(value)) > _MAX_TEXT):
            raise ValueError(
                f"Expected {key!r} in the metadata of {path} to be text of at most {_MAX_TEXT} characters, "
                f"but got {shorten(value)}. Collect again."
            )
    elements = _count_elements(meta)
    if elements > _MAX_META_ELEMENTS:
        raise ValueError(
            f"Expected the metadata of {path} to hold at most {_MAX_META_ELEMENTS} numbers in arrays, "
            f"but got {elements}. Collect again."
        )


def _count_elements(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.size
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_count_elements, items))


def _to_collected(
    attention: np.ndarray, meta: dict[str, Any], path: Path, image_file: str | None
) -> CollectedAttention:
    image_file = str(image_file or meta.get("image_file") or "")
    sample_id = str(meta.get("id") or "")
    query = str(meta.get("query") or "")
    sample = Sample(
        id=sample_id if sample_id.strip() else attention_stem(path),
        image_file=image_file,
        query=query if query.strip() else _UNKNOWN_QUERY,
    )
    if "grid" in meta:
        grid, image_size_wh = _grid_from_meta(meta, path)
    else:
        grid, image_size_wh, assumed = _assume_grid(attention.shape[2], meta, image_file, path)
        meta["assumed"] = assumed
        logger.warning("%s holds no grid: assumed %s.", path, assumed)
    regions = regions_from_meta(meta, attention.shape[2], path)
    if regions is None and grid.num_cells != attention.shape[2]:
        raise ValueError(
            f"Expected {path} to hold as many visual tokens as its grid has cells ({grid.rows} x {grid.cols}), "
            f"but got {attention.shape[2]}. Collect again."
        )
    return CollectedAttention(
        attention=attention,
        grid=grid,
        image_size_wh=image_size_wh,
        sample=sample,
        meta=meta,
        regions=regions,
        layers_without_map=layers_from_meta(meta, attention.shape[0], path),
    )


def _grid_from_meta(meta: Mapping[str, Any], path: Path) -> tuple[Grid, tuple[int, int]]:
    try:
        grid = Grid(**meta["grid"])
        check_grid(grid)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected the grid and image_size in the metadata of {path} to be complete, "
            f"but got a problem with the grid: {shorten_reason(error)}. Collect again."
        ) from error
    return grid, check_image_size(meta.get("image_size"), f"'image_size' in the metadata of {path}")


def check_image_size(value: Any, what: str) -> tuple[int, int]:
    """Check the size of a picture that a file speaks of: a mask of that size will be made.

    Args:
        value: What should be `[width, height]` in pixels.
        what: What it is and where, for messages.

    Returns:
        Width and height.

    Raises:
        ValueError: It is not two whole numbers from 1 to `MAX_IMAGE_SIDE`, or more than `MAX_IMAGE_PIXELS` in all.
    """
    sizes = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 2 or not all(map(_is_side, sizes)):
        raise ValueError(f"Expected {what} to be [width, height] in pixels, but got {shorten(value)}. Collect again.")
    width, height = (int(size) for size in sizes)
    if width * height > MAX_IMAGE_PIXELS or max(width, height) > MAX_IMAGE_SIDE:
        raise ValueError(
            f"Expected {what} to be a picture of at most {MAX_IMAGE_PIXELS} pixels in all and {MAX_IMAGE_SIDE} a side, "
            f"but got {width} x {height}. Shrink the picture, then collect again."
        )
    return width, height


def _is_side(value: Any) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value.is_integer() and value >= 1
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _assume_grid(
    visual_tokens: int, meta: Mapping[str, Any], image_file: str, path: Path
) -> tuple[Grid, tuple[int, int], str]:
    """Place a square grid over the image padded to a square, as LLaVA-1.5 does."""
    side_cells = math.isqrt(visual_tokens)
    if side_cells * side_cells != visual_tokens:
        raise ValueError(
            f"Expected {path}, whose metadata hold no grid, to have a square number of visual tokens, "
            f"but got {visual_tokens}. Collect again, so that the grid is stored."
        )
    image_size_wh, origin = _find_image_size(meta, image_file, side_cells, path)
    width, height = image_size_wh
    side = max(width, height)
    cell = side / side_cells
    grid = Grid(side_cells, side_cells, -float((side - width) // 2), -float((side - height) // 2), cell, cell)
    return grid, image_size_wh, f"a {side_cells} x {side_cells} grid over the image ({origin}) padded to a square"


def _find_image_size(
    meta: Mapping[str, Any], image_file: str, side_cells: int, path: Path
) -> tuple[tuple[int, int], str]:
    if image_file and is_file(image_file):
        width, height = read_image_size(image_file)
        return (width, height), f"{width} x {height}, from {image_file}"
    if meta.get("image_size") is not None:
        width, height = check_image_size(meta["image_size"], f"'image_size' in the metadata of {path}")
        return (width, height), f"{width} x {height}, from the metadata"
    side = side_cells * _ASSUMED_PATCH_SIZE
    return (side, side), f"unknown, taken as {side} x {side}; give data.image_file for a true box"


def read_image_size(path: PathLike) -> tuple[int, int]:
    """Read width and height of an image in pixels, after EXIF rotation, without decoding it.

    Raises:
        ValueError: It is no image that can be read, or a larger one than Pillow opens.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(
            f"Expected {path} to be a readable image, but got {shorten_reason(error)}. Check the file."
        ) from error
    return (height, width) if turned else (width, height)
