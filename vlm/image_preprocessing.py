"""Turns pictures into what a vision tower takes, with the grid that follows from just these steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.grids import Grid

if TYPE_CHECKING:
    from PIL import Image

# Padded pixels that are held at a time: a 1 x 100000 image padded to a square would take 40 GB at once.
_BAND_PIXELS = 16_000_000
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
# No filter of Pillow's looks further than 3 pixels of the smaller picture.
_FILTER_REACH = 3


@dataclass(frozen=True)
class ImageRule:
    """How an image processor makes the model's input: pad, resize, crop, scale, in this order.

    Attributes:
        pad_to_square: Whether the image is first centred on a square of its longer side, filled with the mean colour.
        resize: Length of the short side, or (height, width), or None to keep the size.
        crop_hw: Size of the central crop, or None for no crop.
        resample: Pillow's number of the resampling filter.
        rescale_factor: What the levels 0 to 255 are multiplied with.
        mean: Subtracted from each channel.
        std: What each channel is then divided by.
    """

    pad_to_square: bool
    resize: int | tuple[int, int] | None
    crop_hw: tuple[int, int] | None
    resample: int = _BICUBIC
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, pad_to_square: bool | None = None) -> ImageRule:
        """Read a `preprocessor_config.json`.

        Args:
            config: Its content.
            pad_to_square: Overrides the file, for checkpoints that say so elsewhere.

        Raises:
            ValueError: If the processor is of a kind whose geometry is not known here.
        """
        kind = _processor_kind(config)
        values = {**_PROCESSOR_DEFAULTS[kind], **{key: value for key, value in config.items() if value is not None}}
        if pad_to_square is None:
            # Only LLaVA's own processor knows padding; CLIP's ignores the key.
            pad_to_square = kind == "LlavaImageProcessor" and bool(values.get("do_pad"))
        normalize, rescale = values["do_normalize"], values["do_rescale"]
        return cls(
            pad_to_square=pad_to_square,
            resize=_resize_target(values["size"], square=kind in _SQUASHING) if values["do_resize"] else None,
            crop_hw=_height_width(values["crop_size"]) if values["do_center_crop"] else None,
            resample=int(values["resample"]),
            rescale_factor=float(values["rescale_factor"]) if rescale else 1.0,
            mean=tuple(values["image_mean"]) if normalize else (0.0, 0.0, 0.0),
            std=tuple(values["image_std"]) if normalize else (1.0, 1.0, 1.0),
        )

    @property
    def background(self) -> tuple[int, ...]:
        """Colour of the padding, levels 0 to 255, cut off as LLaVA does."""
        return tuple(int(value * 255) for value in self.mean)


_CLIP_DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
_SIGLIP_DEFAULTS: dict[str, Any] = {
    **_CLIP_DEFAULTS,
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_PROCESSOR_DEFAULTS = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "CLIPFeatureExtractor": _CLIP_DEFAULTS,
    "LlavaImageProcessor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": _SIGLIP_DEFAULTS,
    "ViTImageProcessor": {**_SIGLIP_DEFAULTS, "resample": 2},
}
_SQUASHING = {"SiglipImageProcessor", "ViTImageProcessor"}


def _processor_kind(config: Mapping[str, Any]) -> str:
    """Class name of the processor without the suffix of its backend."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor")
    for suffix in ("Fast", "Pil"):
        name = name[: -len(suffix)] if name.endswith(suffix) else name
    if name not in _PROCESSOR_DEFAULTS:
        raise ValueError(
            f"Expected image_processor_type in preprocessor_config.json to be one of {', '.join(_PROCESSOR_DEFAULTS)}, "
            f"but got {name!r}, whose geometry is not known here."
        )
    return name


def _resize_target(size: Any, *, square: bool) -> int | tuple[int, int]:
    if isinstance(size, int):
        return (size, size) if square else size
    if set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _height_width(size)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not {"height", "width"} <= set(size):
        raise ValueError(
            "Expected a size in preprocessor_config.json to be a number, shortest_edge, or height with width, "
            f"but got {dict(size)!r}."
        )
    return int(size["height"]), int(size["width"])


@dataclass(frozen=True)
class ImagePreprocessor:
    """Turns a picture into pixels for the vision tower, and says where their patches lie in the picture.

    Attributes:
        rule: What is done to the picture.
        patch_size: Side of a patch in pixels of the model's input.
        input_size: Side of the model's input in pixels.
    """

    rule: ImageRule
    patch_size: int
    input_size: int

    def __call__(self, image: Image.Image) -> tuple[np.ndarray, Grid]:
        """Prepare one picture.

        Args:
            image: RGB, upright, as `load_image` gives it.

        Returns:
            Pixels `[3, input_size, input_size]`, float32, normalised; and the grid of patches in pixels of `image`.

        Raises:
            ValueError: If the rule makes an input of another size than the vision tower takes.
        """
        canvas, grid = self._render(image)
        if canvas.size != (self.input_size, self.input_size):
            raise ValueError(
                f"Expected the image processor to make {self.input_size} x {self.input_size} pixels, which the vision "
                f"tower takes, but got {canvas.width} x {canvas.height}. Check preprocessor_config.json."
            )
        pixels = np.asarray(canvas, dtype=np.float32) * np.float32(self.rule.rescale_factor)
        pixels = (pixels - np.asarray(self.rule.mean, np.float32)) / np.asarray(self.rule.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), grid

    def _render(self, image: Image.Image) -> tuple[Image.Image, Grid]:
        """The resized and cropped picture, with the grid that follows from just these steps."""
        rule = self.rule
        left, top, canvas_w, canvas_h = 0, 0, image.width, image.height
        if rule.pad_to_square:
            canvas_w = canvas_h = max(image.size)
            left, top = (canvas_w - image.width) // 2, (canvas_h - image.height) // 2
        target_wh = _resized_wh((canvas_w, canvas_h), rule.resize)
        crop_h, crop_w = rule.crop_hw or (target_wh[1], target_wh[0])
        # Floor division, also below zero: a crop larger than the picture reaches over its edges.
        crop_left, crop_top = (target_wh[0] - crop_w) // 2, (target_wh[1] - crop_h) // 2
        crop_box = (crop_left, crop_top, crop_left + crop_w, crop_top + crop_h)
        if rule.pad_to_square:
            padded = _pad_and_resize(image, (left, top), target_wh, rule)
            rendered = _resize_and_crop(padded, target_wh, crop_box, rule.resample)
        else:
            rendered = _resize_and_crop(image, target_wh, crop_box, rule.resample)
        scale_x, scale_y = canvas_w / target_wh[0], canvas_h / target_wh[1]
        grid = Grid(
            rows=crop_h // self.patch_size,
            cols=crop_w // self.patch_size,
            x0=crop_left * scale_x - left,
            y0=crop_top * scale_y - top,
            cell_w=self.patch_size * scale_x,
            cell_h=self.patch_size * scale_y,
        )
        return rendered, grid


def _resized_wh(canvas_wh: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Width and height after resizing, rounded down as the image processors do."""
    width, height = canvas_wh
    if resize is None:
        return canvas_wh
    if not isinstance(resize, int):
        return resize[1], resize[0]
    longer = int(resize * max(canvas_wh) / min(canvas_wh))
    return (resize, longer) if width <= height else (longer, resize)


def _pad_and_resize(
    image: Image.Image, corner: tuple[int, int], target_wh: tuple[int, int], rule: ImageRule
) -> Image.Image:
    """Pad to a square and resize, without ever holding the whole square.

    Pillow resizes rows first, then columns, so bands of rows give the very same result.
    """
    from PIL import Image

    side, (left, top) = max(image.size), corner
    narrow = Image.new("RGB", (target_wh[0], side), rule.background)
    scale = side / target_wh[0]
    first_column, last_column = _touched_columns(left, left + image.width, scale, target_wh[0])
    if side * image.height <= _BAND_PIXELS or 4 * (last_column - first_column) > target_wh[0]:
        # Only a very narrow picture is worth leaving columns out, which may round a level the other way.
        first_column, last_column = 0, target_wh[0]
    canvas_left, canvas_right = _canvas_columns(first_column * scale, last_column * scale, scale, side)
    box = (first_column * scale - canvas_left, last_column * scale - canvas_left)
    band_height = max(1, _BAND_PIXELS // (canvas_right - canvas_left))
    for first in range(0, image.height, band_height):
        last = min(first + band_height, image.height)
        band = Image.new("RGB", (canvas_right - canvas_left, last - first), rule.background)
        band.paste(image.crop((0, first, image.width, last)), (left - canvas_left, 0))
        resized = band.resize(
            (last_column - first_column, last - first), rule.resample, box=(box[0], 0, box[1], last - first)
        )
        narrow.paste(resized, (first_column, top + first))
    return narrow.resize(target_wh, rule.resample)


def _touched_columns(left: int, right: int, scale: float, columns: int) -> tuple[int, int]:
    """Columns after resizing that anything but padding reaches: those of the picture and the filter's width beside."""
    reach = _FILTER_REACH * max(scale, 1)
    return max(math.floor((left - reach) / scale), 0), min(math.ceil((right + reach) / scale), columns)


def _canvas_columns(left: float, right: float, scale: float, side: int) -> tuple[int, int]:
    """Columns before resizing that reach the ones between, in whole pixels of the padded square."""
    reach = _FILTER_REACH * max(scale, 1)
    return max(math.floor(left - reach), 0), min(math.ceil(right + reach), side)


def _resize_and_crop(
    image: Image.Image, target_wh: tuple[int, int], crop_box: tuple[int, int, int, int], resample: int
) -> Image.Image:
    """Resize to `target_wh` and cut `crop_box` out; black beyond the edges."""
    if target_wh[0] * target_wh[1] <= _BAND_PIXELS:
        return image.resize(target_wh, resample).crop(crop_box)
    # The short side of a very long image cannot be enlarged as a whole: compute no more than the crop shows.
    left, top, right, bottom = crop_box
    shown = (max(left, 0), max(top, 0), min(right, target_wh[0]), min(bottom, target_wh[1]))
    scale_x, scale_y = image.width / target_wh[0], image.height / target_wh[1]
    columns = (shown[0] * scale_x, 0, min(shown[2] * scale_x, image.width), image.height)
    narrow = image.resize((shown[2] - shown[0], image.height), resample, box=columns)
    rows = (0, shown[1] * scale_y, narrow.width, min(shown[3] * scale_y, image.height))
    part = narrow.resize((narrow.width, shown[3] - shown[1]), resample, box=rows)
    return part.crop((left - shown[0], top - shown[1], right - shown[0], bottom - shown[1]))
