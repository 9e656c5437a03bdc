"""Families by their model type: the rule for their grid, and those that cannot be read with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.regions import Region, Regions, covering, row_major
from vlm import grid_formulas as formulas
from vlm import tile_formulas as tiles

Size = tuple[int, int]


@dataclass(frozen=True)
class PictureFacts:
    """What a rule may look at.

    Attributes:
        config: The model's configuration.
        image_processor: With the settings that were applied.
        inputs: What it made of the picture; grids are read from it where it says them.
        wh: Width and height of the picture.
        num_tokens: Tokens that carry the image.
    """

    config: Any
    image_processor: Any
    inputs: Mapping[str, Any]
    wh: Size
    num_tokens: int

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting of the image processor."""
        value = getattr(self.image_processor, name, None)
        return default if value is None else value

    def length(self, name: str, *keys: str) -> int:
        """A length out of one of the image processor's size settings, under the first key that is there."""
        size = self.setting(name, {})
        if isinstance(size, int):
            return size
        for key in keys:
            value = size.get(key) if hasattr(size, "get") else getattr(size, key, None)
            if value is not None:
                return int(value)
        raise ValueError(
            f"Expected {name} of the image processor to have {' or '.join(keys)}, but got {str(size)[:80]!r}."
        )


Rule = Callable[[PictureFacts], list[Region]]


def known_regions(model_type: str, facts: PictureFacts) -> Regions | None:
    """Regions by the family's rule; None where it has none.

    Raises:
        ValueError: If the rule does not account for the image's tokens.
    """
    rule = RULES.get(model_type)
    if rule is None:
        return None
    found = rule(facts)
    regions = Regions(tuple(found), facts.num_tokens)
    expected = _separators_of(found) if model_type in _NEWLINES else _uncounted(model_type, facts, found)
    if len(regions.separators) != expected:
        cells = sum(region.token_of.size for region in found)
        raise ValueError(
            f"Expected the grid rule of {model_type} to account for the image's {facts.num_tokens} tokens, but got "
            f"{cells} cells and {expected} separators for a picture of {facts.wh[0]} x {facts.wh[1]}. Please report it."
        )
    return regions


def _separators_of(found: list[Region]) -> int:
    """Newlines of joined tiles: one a row."""
    return next(region.grid.rows for region in found if region.kind == "whole")


def _uncounted(model_type: str, facts: PictureFacts, found: list[Region]) -> int:
    """Tokens that are no cells: class tokens, and tiles that a picture does not fill."""
    if model_type == "mllama":
        return facts.num_tokens - sum(region.token_of.size for region in found)
    return int(found[0].token_of.min()) if model_type in {"llava", "vipllava"} else 0


# One grid -------------------------------------------------------------------------------------------------------------


def _tower(facts: PictureFacts) -> list[Region]:
    """A tower that takes one square: cropped, squashed or padded as the image processor is set."""
    if "image_sizes" in facts.inputs and "Pixtral" in type(facts.image_processor).__name__:
        return _whole_patches(facts)
    side = math.isqrt(facts.num_tokens)
    first = facts.num_tokens - side * side
    if facts.setting("do_pad", False) and "Llava" in type(facts.image_processor).__name__:
        grid = formulas.padded_then_resized(facts.wh, side=side)
    elif facts.setting("do_center_crop", False):
        crop = (facts.length("crop_size", "width"), facts.length("crop_size", "height"))
        shortest = facts.length("size", "shortest_edge", "height")
        grid = formulas.centre_cropped(facts.wh, shortest=shortest, crop_wh=crop, rows=side, cols=side)
    else:
        grid = formulas.squashed(facts.wh, side=side)
    return [Region("whole", grid, row_major(side, side, first=first))]


def _squashed(facts: PictureFacts) -> list[Region]:
    side = math.isqrt(facts.num_tokens)
    return [Region("whole", formulas.squashed(facts.wh, side=side), row_major(side, side))]


def _whole_patches(facts: PictureFacts) -> list[Region]:
    """Pixtral's line: the picture's shape kept, both sides up to whole patches."""
    cell = facts.config.vision_config.patch_size * getattr(facts.config, "spatial_merge_size", 1)
    height, width = (int(side) for side in facts.inputs["image_sizes"][0])
    return _whole(facts.wh, height // cell, width // cell)


def _whole(wh: Size, rows: int, cols: int) -> list[Region]:
    return [Region("whole", covering(*wh, rows, cols), row_major(rows, cols))]


def _merged_patches(facts: PictureFacts) -> list[Region]:
    """Qwen-VL's line: row-major over merged patches, in spite of their order inside the tower."""
    _, rows, cols = (int(number) for number in facts.inputs["image_grid_thw"][0])
    merge = int(facts.inputs["image_merge_sizes"][0]) if "image_merge_sizes" in facts.inputs else _merge(facts)
    return _whole(facts.wh, rows // merge, cols // merge)


def _merge(facts: PictureFacts) -> int:
    return int(facts.setting("merge_size", 2))


def _kimi(facts: PictureFacts) -> list[Region]:
    patch = int(facts.setting("patch_size", 14))
    limit = facts.length("size", "max_height", "longest_edge")
    patches = int(facts.setting("max_patches", 16384))
    resized = formulas.kimi_size(facts.wh, patch=patch, max_patches=patches, max_side=limit)
    grid = formulas.padded_right_and_below(facts.wh, resized_wh=resized, step=patch * _merge(facts))
    return [Region("whole", grid, row_major(*grid.shape))]


def _gemma3(facts: PictureFacts) -> list[Region]:
    side = math.isqrt(int(facts.config.mm_tokens_per_image))
    if facts.num_tokens == side * side:
        return _squashed(facts)
    return tiles.pan_and_scan(
        facts.wh,
        side=side,
        smallest_crop=int(facts.setting("pan_and_scan_min_crop_size", 256)),
        most=int(facts.setting("pan_and_scan_max_num_crops", 4)),
        least_ratio=float(facts.setting("pan_and_scan_min_ratio_to_activate", 1.2)),
    )


def _gemma4(facts: PictureFacts) -> list[Region]:
    """Both sides down to whole pooled cells; the processor says the place of each patch, padding below 0."""
    places = facts.inputs["image_position_ids"].reshape(-1, 2)
    pool = int(facts.setting("pooling_kernel_size", 3))
    cols, rows = (int(places[:, axis].max() + 1) // pool for axis in (0, 1))
    return _whole(facts.wh, rows, cols)


def _padded_square(facts: PictureFacts) -> list[Region]:
    side = math.isqrt(facts.num_tokens)
    target, smallest = facts.length("size", "height", "longest_edge"), int(facts.setting("min_size", 14))
    grid = formulas.resized_then_padded(facts.wh, target=target, side=side, smallest=smallest)
    return [Region("whole", grid, row_major(side, side))]


# Tiles ----------------------------------------------------------------------------------------------------------------


def _with_thumbnail(facts: PictureFacts, layout: tiles.Layout, thumbnail: str = "last") -> list[Region]:
    count = layout[0] * layout[1] + (layout != (1, 1))
    return tiles.tiled(facts.wh, layout, side=math.isqrt(facts.num_tokens // count), thumbnail=thumbnail)


def _closest_shape(facts: PictureFacts) -> list[Region]:
    tile = (facts.length("size", "width"), facts.length("size", "height"))
    least, most = int(facts.setting("min_patches", 1)), int(facts.setting("max_patches", 12))
    return _with_thumbnail(facts, tiles.layout_of_closest_shape(facts.wh, tile_wh=tile, least=least, most=most))


def _least_enlargement(facts: PictureFacts) -> list[Region]:
    tile, most = facts.length("size", "height"), int(facts.setting("max_patches", 12))
    return _with_thumbnail(facts, tiles.layout_of_least_enlargement(facts.wh, tile=tile, most=most))


def _fewest_tiles(facts: PictureFacts) -> list[Region]:
    tile, most = facts.length("size", "height"), int(facts.setting("max_patches", 12))
    return _with_thumbnail(facts, tiles.layout_of_fewest_tiles(facts.wh, tile=tile, most=most), "first")


def _whole_tiles(facts: PictureFacts) -> list[Region]:
    if not facts.setting("do_image_splitting", True):
        return _squashed(facts)
    layout = tiles.layout_of_whole_tiles(
        facts.wh, longest=facts.length("size", "longest_edge"), tile=facts.length("max_image_size", "longest_edge")
    )
    return _with_thumbnail(facts, layout)


def _joined(facts: PictureFacts) -> list[Region]:
    tower = facts.config.vision_config
    ratio = str(getattr(facts.config, "vision_aspect_ratio", ""))
    most = int(ratio.rsplit("_", 1)[1]) if ratio.startswith("anyres_max_") else None
    return tiles.joined_tiles(
        facts.wh,
        pinpoints=facts.setting("image_grid_pinpoints"),
        tile=int(tower.image_size),
        side=int(tower.image_size) // int(tower.patch_size),
        most=most,
    )


def _llama3(facts: PictureFacts) -> list[Region]:
    """Keys of the cross attention: as many tiles as there can be, each with its class token first."""
    tile, most = facts.length("size", "height"), int(facts.setting("max_image_tiles", 4))
    layout = tiles.layout_of_canvas(facts.wh, tile=tile, most=most)
    box = tuple(min(max(length, tile), count * tile) for length, count in zip(facts.wh, layout))
    per_tile = facts.num_tokens // most
    resized = tiles.fitted_into(facts.wh, (box[0], box[1]))
    return tiles.on_canvas(facts.wh, resized, layout, tile=tile, side=math.isqrt(per_tile - 1), first=1, step=per_tile)


def _llama4(facts: PictureFacts) -> list[Region]:
    tile, most = facts.length("size", "height"), int(facts.setting("max_patches", 16))
    layout = tiles.layout_of_canvas(facts.wh, tile=tile, most=most)
    box = tuple(min(max(length, tile), count * tile) for length, count in zip(facts.wh, layout))
    resized = tiles.fitted_into(facts.wh, (box[0], box[1]))
    count = layout[0] * layout[1] + (layout != (1, 1))
    side = math.isqrt(facts.num_tokens // count)
    found = tiles.on_canvas(facts.wh, resized, layout, tile=tile, side=side, first=0, step=side * side)
    if layout == (1, 1):
        return found
    last = row_major(side, side, first=(count - 1) * side * side)
    return [*found, Region("thumbnail", covering(*facts.wh, side, side), last)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("llava", "vipllava", "chameleon"), _tower),
    **dict.fromkeys(("paligemma", "got_ocr2", "gemma3n"), _squashed),
    **dict.fromkeys(("mistral3", "lighton_ocr"), _whole_patches),
    **dict.fromkeys(
        (
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3_vl",
            "qwen3_vl_moe",
            "qwen3_5",
            "qwen3_5_moe",
            "glm4v",
            "glm4v_moe",
            "glm46v",
            "ernie4_5_vl_moe",
            "video_llama_3",
        ),
        _merged_patches,
    ),
    "kimi_k25": _kimi,
    **dict.fromkeys(("gemma3", "shieldgemma2"), _gemma3),
    "gemma4": _gemma4,
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid", "janus"), _padded_square),
    **dict.fromkeys(("internvl", "aya_vision"), _closest_shape),
    "cohere2_vision": _least_enlargement,
    "ovis2": _fewest_tiles,
    **dict.fromkeys(("idefics3", "smolvlm"), _whole_tiles),
    **dict.fromkeys(("llava_next", "llava_onevision"), _joined),
    "mllama": _llama3,
    "llama4": _llama4,
}
_NEWLINES = {"llava_next", "llava_onevision"}

_RESAMPLER = "its image tokens come out of a resampler, so that none of them has a place in the picture"
_ENCODER = "it reads the prompt with an encoder, whose rows know what follows, and not with a decoder"
# Why a family cannot be read.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        ("idefics", "idefics2", "aria", "blip-2", "instructblip", "instructblipvideo", "kosmos-2", "kosmos-2.5"),
        _RESAMPLER,
    ),
    **dict.fromkeys(("florence2", "t5gemma2", "udop", "pix2struct", "vision-encoder-decoder"), _ENCODER),
    **dict.fromkeys(("blip", "git"), "it is a captioner without image tokens in its prompt"),
}


def refuse_unreadable(name: str, model_type: str, config: Any) -> None:
    """Say in one line why a model cannot be read, if it cannot.

    Raises:
        ValueError: If it cannot.
    """
    reason = REFUSED.get(model_type)
    if reason is None and getattr(config, "is_encoder_decoder", False):
        reason = _ENCODER
    if reason is not None:
        raise ValueError(
            f"Expected {name!r} to be a model whose attention to the picture can be read, but got model_type "
            f"{model_type!r}: {reason}."
        )
