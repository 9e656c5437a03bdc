"""Attention files: the attention of one sample and how it was made, written whole and read without running code."""

from __future__ import annotations

import logging
import math
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lab.records import CollectedAttention, Grid, Sample
from lab.storage.files import atomic_write, to_plain
from lab.storage.paths import PathLike, attention_stem, find_attention_file
from lab.storage.safe_pickle import PICKLE_PROTOCOL, read_plain_pickle

logger = logging.getLogger(__name__)

ATTENTION_DTYPES = ("float16", "bfloat16", "float32")

# Attention in float16 is almost noise to gzip: level 1 saves 16 %, level 9 saves 17 % at twice the time.
GZIP_LEVEL = 1

_UNKNOWN_QUERY = "(not recorded)"
_ASSUMED_PATCH_SIZE = 14


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
        vis_len=collected.grid.num_cells,
        grid=asdict(collected.grid),
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
    import torch

    if dtype not in ATTENTION_DTYPES:
        raise ValueError(f"Expected the stored dtype to be one of {', '.join(ATTENTION_DTYPES)}, but got {dtype!r}.")
    path = Path(path)
    tensor = torch.from_numpy(np.ascontiguousarray(collected.attention[:, :, None, :], dtype=np.float32))
    tensor = tensor.to(getattr(torch, dtype)).clone()
    meta = build_meta(collected, dtype)
    data = pickle.dumps({"attn": tensor, "meta": meta}, protocol=PICKLE_PROTOCOL)
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
    path = find_attention_file(path)
    content = read_plain_pickle(path)
    if not isinstance(content, Mapping):
        content = {"attn": content}
    if "attn" not in content:
        raise ValueError(
            f"Expected {path} to hold the key 'attn', but got the keys {sorted(map(str, content))}. "
            "Give an attention file written by stage=collect, not an analysis or metadata file."
        )
    attention = _to_attention_array(content["attn"], path)
    meta = content.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise ValueError(f"Expected 'meta' in {path} to be a dictionary, but got {type(meta).__name__}.")
    return _to_collected(attention, dict(meta), path, image_file)


def round_attention(attention: np.ndarray, dtype: str) -> np.ndarray:
    """Round attention to what a file of this dtype will hold, so that fresh and stored attention give equal results.

    Args:
        attention: Any shape, float32.
        dtype: float16, bfloat16 or float32.

    Returns:
        A float32 array of the same shape.
    """
    if dtype == "float32":
        return attention
    if dtype == "float16":
        return attention.astype(np.float16).astype(np.float32)
    import torch

    rounded: np.ndarray = torch.from_numpy(attention).to(getattr(torch, dtype)).float().numpy()
    return rounded


def _gzip(data: bytes, level: int) -> bytes:
    """Deflate to one gzip member without time or name in its header, so that equal data give equal bytes."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, 31)
    return deflater.compress(data) + deflater.flush()


def _to_attention_array(value: Any, path: Path) -> np.ndarray:
    """Turn a stored tensor or array `[L, H, 1, V]` or `[L, H, V]` into `[L, H, V]` float32."""
    if hasattr(value, "detach"):
        value = value.detach().float().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(f"Expected the attention in {path} to be a tensor of numbers, but got {type(value).__name__}.")
    if value.ndim == 4 and value.shape[2] == 1:
        value = value[:, :, 0, :]
    if value.ndim != 3 or 0 in value.shape:
        raise ValueError(
            f"Expected the attention in {path} to have the shape [layers, heads, 1, visual_tokens], "
            f"but got {list(value.shape)}."
        )
    return np.ascontiguousarray(value, dtype=np.float32)


def _to_collected(
    attention: np.ndarray, meta: dict[str, Any], path: Path, image_file: str | None
) -> CollectedAttention:
    image_file = str(image_file or meta.get("image_file") or "")
    sample = Sample(
        id=str(meta.get("id") or attention_stem(path)),
        image_file=image_file,
        query=str(meta.get("query") or _UNKNOWN_QUERY),
    )
    if "grid" in meta:
        grid, image_size_wh = _grid_from_meta(meta, path)
    else:
        grid, image_size_wh, assumed = _assume_grid(attention.shape[2], meta, image_file, path)
        meta["assumed"] = assumed
        logger.warning("%s holds no grid: assumed %s.", path, assumed)
    return CollectedAttention(attention=attention, grid=grid, image_size_wh=image_size_wh, sample=sample, meta=meta)


def _grid_from_meta(meta: Mapping[str, Any], path: Path) -> tuple[Grid, tuple[int, int]]:
    try:
        width, height = meta["image_size"]
        return Grid(**meta["grid"]), (int(width), int(height))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"Expected the grid and image_size in the metadata of {path} to be complete, but got {error!r}. "
            "Collect again."
        ) from error


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
    image_size_wh, origin = _find_image_size(meta, image_file, side_cells)
    width, height = image_size_wh
    side = max(width, height)
    cell = side / side_cells
    grid = Grid(side_cells, side_cells, -float((side - width) // 2), -float((side - height) // 2), cell, cell)
    return grid, image_size_wh, f"a {side_cells} x {side_cells} grid over the image ({origin}) padded to a square"


def _find_image_size(meta: Mapping[str, Any], image_file: str, side_cells: int) -> tuple[tuple[int, int], str]:
    if image_file and Path(image_file).is_file():
        width, height = read_image_size(image_file)
        return (width, height), f"{width} x {height}, from {image_file}"
    if meta.get("image_size"):
        width, height = (int(number) for number in meta["image_size"])
        return (width, height), f"{width} x {height}, from the metadata"
    side = side_cells * _ASSUMED_PATCH_SIZE
    return (side, side), f"unknown, taken as {side} x {side}; give data.image_file for a true box"


def read_image_size(path: PathLike) -> tuple[int, int]:
    """Read width and height of an image in pixels, after EXIF rotation, without decoding it."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)
