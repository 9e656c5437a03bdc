"""Grids of processors that make one grid of a picture: crop, squash, pad, or keep the shape.

Pure arithmetic on sizes; every formula gives the grid in pixels of the original image.
"""

from __future__ import annotations

from lab.grids import Grid
from lab.regions import covering

Size = tuple[int, int]


def squashed(wh: Size, *, side: int) -> Grid:
    """Resized to a square without regard to the shape: PaliGemma, Gemma 3, SigLIP towers, GOT-OCR2.

    Args:
        wh: Width and height of the image.
        side: Tokens on a side of the square, after any pooling.
    """
    return covering(*wh, side, side)


def centre_cropped(wh: Size, *, shortest: int, crop_wh: Size, rows: int, cols: int) -> Grid:
    """Short side to a length, then the middle of it: CLIP's processor, so LLaVA-1.5 of Hugging Face and VipLLaVA.

    Args:
        wh: Width and height of the image.
        shortest: Length of the short side after resizing; the other is rounded down.
        crop_wh: Size of what is kept; an odd margin is rounded down on the left and above.
        rows: Rows of tokens in it.
        cols: Columns of tokens in it.
    """
    width, height = wh
    portrait = width <= height
    resized_w = shortest if portrait else int(shortest * width / height)
    resized_h = int(shortest * height / width) if portrait else shortest
    left, top = (resized_w - crop_wh[0]) // 2, (resized_h - crop_wh[1]) // 2
    scale_x, scale_y = width / resized_w, height / resized_h
    return covering(crop_wh[0] * scale_x, crop_wh[1] * scale_y, rows, cols, x0=left * scale_x, y0=top * scale_y)


def padded_then_resized(wh: Size, *, side: int) -> Grid:
    """Centred on a square of the longer side, then resized: LLaVA-1.5 as published."""
    longer = max(wh)
    return covering(longer, longer, side, side, x0=-((longer - wh[0]) // 2), y0=-((longer - wh[1]) // 2))


def resized_then_padded(wh: Size, *, target: int, side: int, smallest: int = 14) -> Grid:
    """Long side to a length, then centred on a square: DeepSeek-VL and Janus.

    Args:
        wh: Width and height of the image.
        target: Length of the long side after resizing.
        side: Tokens on a side of the square.
        smallest: What the short side is enlarged to at least.
    """
    scale = target / max(wh)
    resized = [max(round(length * scale), smallest) for length in wh]
    square = max(resized)
    scale_x, scale_y = wh[0] / resized[0], wh[1] / resized[1]
    left, top = (square - resized[0]) // 2, (square - resized[1]) // 2
    return covering(square * scale_x, square * scale_y, side, side, x0=-left * scale_x, y0=-top * scale_y)


def padded_right_and_below(wh: Size, *, resized_wh: Size, step: int) -> Grid:
    """Resized, then filled up right and below to whole cells: Kimi K2.5, Fuyu.

    Args:
        wh: Width and height of the image.
        resized_wh: Its size before it is filled up.
        step: Side of a cell in the resized picture.
    """
    rows, cols = -(-resized_wh[1] // step), -(-resized_wh[0] // step)
    return Grid(rows, cols, 0.0, 0.0, step * wh[0] / resized_wh[0], step * wh[1] / resized_wh[1])


def kimi_size(wh: Size, *, patch: int, max_patches: int, max_side: int) -> Size:
    """Kimi K2.5's size before filling up: never enlarged, at most `max_patches` in all and `max_side` on a side."""
    patches = max(1.0, wh[0] // patch) * max(1.0, wh[1] // patch)
    limit = max_side * patch
    scale = min(1.0, (max_patches / patches) ** 0.5, limit / wh[0], limit / wh[1])
    return min(max(1, int(wh[0] * scale)), limit), min(max(1, int(wh[1] * scale)), limit)
