"""Maps, numbers and pictures as text: small enough for one file, exact where boxes depend on it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SIDE = 512
PICTURE_BYTES = 45_000
_QUALITIES = (88, 80, 70, 60, 45, 30)


def exact_maps(maps: np.ndarray) -> str:
    """Maps `[maps, cells]` as base64 of little-endian float32: a box made of them is the run's, to the last digit."""
    return base64.b64encode(np.ascontiguousarray(maps, dtype="<f4").tobytes()).decode("ascii")


def coded_maps(maps: np.ndarray) -> tuple[list[Optional[float]], str]:
    """Maps in 8 bits: 255 times the root of each cell's share of the map's peak, so that faint cells keep an order.

    Args:
        maps: `[maps, cells]`, 0 or more.

    Returns:
        The peak of each map, and the codes as base64, map after map.
    """
    peaks = maps.max(axis=1) if maps.size else np.zeros(len(maps))
    shares = np.divide(maps, peaks[:, None], out=np.zeros(maps.shape), where=peaks[:, None] > 0)
    codes = np.rint(255 * np.sqrt(np.clip(shares, 0, 1))).astype(np.uint8)
    return [float(peak) for peak in peaks], base64.b64encode(codes.tobytes()).decode("ascii")


def decode_maps(peaks: Sequence[Optional[float]], text: str) -> np.ndarray:
    """What the page makes of `coded_maps`: `[maps, cells]` float64."""
    codes = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(len(peaks), -1)
    return (codes / 255.0) ** 2 * np.array(peaks, dtype=np.float64)[:, None]


def numbers(values: np.ndarray, digits: int = 4) -> list[Optional[float]]:
    """Values, flat, with so many significant digits; None for what is not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.ravel(values)]


def picture(image_file: str, size_wh: tuple[int, int]) -> str:
    """A picture as a data address: JPEG, upright, its long side at most 512 pixels.

    Args:
        image_file: Path of the picture.
        size_wh: Width and height that the attention was collected for.

    Raises:
        ValueError: The picture cannot be read, or is of another size.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(image_file) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.size != tuple(size_wh):
                raise ValueError(f"it is of {upright.size[0]} x {upright.size[1]} pixels")
            content = _small_jpeg(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"Expected the picture {image_file} to be readable and {size_wh[0]} x {size_wh[1]} pixels large, "
            f"but got: {error}. Put back the picture that the attention was collected on."
        ) from error
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"


def _small_jpeg(image: Image.Image) -> bytes:
    """The first quality, from fine to coarse, whose file is small enough; else the coarsest."""
    copy = image.convert("RGB")
    copy.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    content = b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=quality, optimize=True)
        content = file.getvalue()
        if len(content) <= PICTURE_BYTES:
            break
    return content


def script_safe_json(value: Any) -> str:
    """JSON that ends no script element and runs nowhere, whatever text it holds.

    Raises:
        ValueError: The value holds NaN or infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return (
        "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) < 0xE000 else c for c in text) if _has_surrogate(text) else text
    )


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
