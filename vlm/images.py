"""Reads a picture of any kind as RGB, upright."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from foreign_files.messages import shorten_path, shorten_reason
from lab.storage.paths import is_file

if TYPE_CHECKING:
    from PIL import Image

PathLike = Union[str, "Path"]

# Half of a 16-bit grey image's files are opened by Pillow in mode I, which is 32 bits wide.
_SIXTEEN_BIT_MAX = 65535
# What Pillow calls PostScript, whatever the file is called; it starts Ghostscript to read it.
_POSTSCRIPT = "EPS"
# How files of the HEIF family name themselves in their first box.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def load_image(path: PathLike) -> Image.Image:
    """Read a picture as RGB, upright.

    EXIF rotation is applied; transparency is laid over white; 16-bit and float grey levels are scaled to 8 bits; of an
    animation the first frame is taken.

    Args:
        path: An image file of any format that Pillow reads.

    Raises:
        ValueError: If the file is missing or broken.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = Path(path)
    if not is_file(file):
        raise ValueError(f"Expected the image to be a file, but got {shorten_path(path)}, which is not there.")
    _open_heif_too()
    try:
        with Image.open(file) as opened:
            if opened.format != _POSTSCRIPT:
                opened.load()
                return _to_rgb(ImageOps.exif_transpose(opened))
            reason = "PostScript (EPS), which is a program and is not run. Convert the picture to PNG"
    except UnidentifiedImageError:
        reason = _not_an_image(file)
    except Image.DecompressionBombError as error:
        reason = f"one too large to open safely ({error})"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders raise any of these on damaged files.
        reason = f"a broken file ({error})"
    raise ValueError(f"Expected {shorten_path(path)} to be a readable image, but got {shorten_reason(reason)}.")


def _open_heif_too() -> None:
    """Let Pillow read HEIC pictures, the usual ones of telephones, where pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _not_an_image(file: Path) -> str:
    """What a file is that Pillow does not know: one of a format that an extra package reads, or no image."""
    with open(file, "rb") as opened:
        start = opened.read(32)
    if start[4:8] == b"ftyp" and any(brand in start[8:] for brand in _HEIF_BRANDS):
        return (
            "HEIC, which Pillow reads only with pillow-heif. Run pip install pillow-heif, or convert the picture to PNG"
        )
    return "a file that is no image"


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _grey_levels_to_8_bits(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _grey_levels_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale integer levels from 16 bits, float levels from their own range of 0 to 1, 255 or 65535."""
    from PIL import Image

    levels = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(min=0)
    top = _SIXTEEN_BIT_MAX
    if image.mode == "F":
        top = next((limit for limit in (1, 255) if levels.max(initial=0) <= limit), _SIXTEEN_BIT_MAX)
    grey = np.rint(levels.clip(max=top) * (255 / top)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
