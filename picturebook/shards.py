"""Drawn scenes as the model's training arrays, kept on disk in shards so that a stopped training goes on."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image

from picturebook.drawing import render
from picturebook.sampling import sample_scene
from picturebook.scenes import COLORS, KINDS, PATTERNS, SIZES, SUPPORTS, Rendered, Scene

IMAGE_SIDE = 128
PATCH_SIDE = 8
GRID_SIDE = IMAGE_SIDE // PATCH_SIDE

# What the vision tower learns to name in each patch; class 0 of each is "no object here".
PATCH_TASKS = {
    "kind": len(KINDS) + 1,
    "color": len(COLORS) + 1,
    "pattern": len(PATTERNS) + 1,
    "size": len(SIZES) + 1,
    "collar": 3,
    "support": len(SUPPORTS) + 2,
}

# A patch belongs to an object that covers at least this share of it.
PATCH_COVERAGE = 0.4

# Padding colour of LLaVA's square: the image processor's mean (0.5) as a byte.
PADDING_BYTE = 127


@dataclass(frozen=True)
class Shard:
    """A run of scenes.

    Attributes:
        images: `[n, IMAGE_SIDE, IMAGE_SIDE, 3]` uint8, padded to a square and resized as the pipeline does.
        patch_labels: `[n, len(PATCH_TASKS), GRID_SIDE ** 2]` uint8, row-major over the grid.
        target_cover: one array `[objects, GRID_SIDE ** 2]` float32 a scene: share of each patch that an object covers.
        scenes: The scenes.
    """

    images: np.ndarray
    patch_labels: np.ndarray
    target_cover: Sequence[np.ndarray]
    scenes: Sequence[Scene]


def draw_shards(directory: Path, seed: int, count: int, scenes_each: int, workers: int = 1) -> list[Path]:
    """Draw shards that are not on disk yet.

    Args:
        directory: Where they are kept.
        seed: Seeds of different splits must differ; shard i is drawn from (seed, i) alone.
        count: Number of shards.
        scenes_each: Number of scenes in each.
        workers: Processes that draw.

    Returns:
        The shards' paths, in order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"shard-{seed}-{index:03d}-{scenes_each}.pkl" for index in range(count)]
    missing = [(path, seed, index, scenes_each) for index, path in enumerate(paths) if not path.exists()]
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(_draw_shard, *zip(*missing))) if missing else None
    else:
        for arguments in missing:
            _draw_shard(*arguments)
    return paths


def load_shard(path: Path) -> Shard:
    """Read a shard that `draw_shards` wrote."""
    with path.open("rb") as file:
        return pickle.load(file)


def model_view(image: Image.Image) -> Image.Image:
    """Pad a picture to a centred square of the padding colour and resize it to the model's side."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (PADDING_BYTE,) * 3)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)


def patch_cover(rendered: Rendered) -> np.ndarray:
    """Share of each patch of the padded square that each object's mask covers, `[objects, GRID_SIDE ** 2]`."""
    width, height = rendered.image.size
    side = max(width, height)
    top, left = (side - height) // 2, (side - width) // 2
    cover = np.zeros((len(rendered.masks), GRID_SIDE, GRID_SIDE), np.float32)
    for index, mask in enumerate(rendered.masks):
        square = Image.new("L", (side, side), 0)
        square.paste(Image.fromarray(np.asarray(mask, np.uint8) * 255), (left, top))
        cover[index] = np.asarray(square.resize((GRID_SIDE, GRID_SIDE), Image.Resampling.BOX), np.float32) / 255.0
    return cover.reshape(len(rendered.masks), -1)


def patch_labels(scene: Scene, cover: np.ndarray) -> np.ndarray:
    """Class of each patch for each of `PATCH_TASKS`, `[tasks, GRID_SIDE ** 2]` uint8."""
    labels = np.zeros((len(PATCH_TASKS), cover.shape[1]), np.uint8)
    for target, share in zip(scene.objects, cover):
        classes = (
            1 + KINDS.index(target.kind),
            1 + list(COLORS).index(target.color),
            1 + PATTERNS.index(target.pattern),
            1 + SIZES.index(target.size),
            2 if target.collar else 1,
            2 + SUPPORTS.index(target.support) if target.support else 1,
        )
        labels[:, share >= PATCH_COVERAGE] = np.array(classes, np.uint8)[:, None]
    return labels


def _draw_shard(path: Path, seed: int, index: int, scenes_each: int) -> None:
    """Draw one shard and write it whole."""
    rng = random.Random(f"picturebook-{seed}-{index}")
    drawn = [_draw_example(rng) for _ in range(scenes_each)]
    shard = Shard(
        images=np.stack([view for view, _, _, _ in drawn]),
        patch_labels=np.stack([labels for _, labels, _, _ in drawn]),
        target_cover=[cover for _, _, cover, _ in drawn],
        scenes=[scene for _, _, _, scene in drawn],
    )
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        pickle.dump(shard, file, protocol=4)
    temporary.replace(path)


def _draw_example(
    rng: random.Random, scene: Optional[Scene] = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Scene]:
    """Draw a scene at a random resolution, so that the tower meets every amount of downscaling."""
    scene = scene or sample_scene(rng)
    rendered = render(scene, long_side=rng.choice((144, 176, 208, 256)), supersample=2)
    cover = patch_cover(rendered)
    return np.asarray(model_view(rendered.image)), patch_labels(scene, cover), cover, scene
