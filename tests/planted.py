"""Planted attention: heads whose job is known, so that what must be found is known too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyze import DatasetScores, score_heads, stack_scores
from lab.records import Grid

NUM_LAYERS, NUM_HEADS = 6, 8
GRID_SHAPE = (16, 16)
LOCALIZATION_HEADS = ((3, 5), (4, 0), (5, 2))
SINK_HEADS = ((3, 0), (4, 3))
BOTTOM_ROW_HEADS = ((3, 1), (5, 7))
DIFFUSE_HEADS = tuple((layer, head) for layer in (2, 3, 4) for head in (2, 4, 7))
IDLE_HEADS = ((4, 6), (5, 6))
EARLY_HEADS = ((0, 0), (1, 3))

Cells = tuple[int, int, int, int]


@dataclass(frozen=True)
class PlantedSample:
    """Attention `[layers, heads, rows * cols]` of one sample, and the target: half-open (row0, col0, row1, col1)."""

    attention: np.ndarray
    target: Cells

    def truth_xyxy(self, grid: Grid) -> tuple[float, float, float, float]:
        row0, col0, row1, col1 = self.target
        return (
            grid.x0 + col0 * grid.cell_w,
            grid.y0 + row0 * grid.cell_h,
            grid.x0 + col1 * grid.cell_w,
            grid.y0 + row1 * grid.cell_h,
        )


def plant_sample(seed: int, noise: float) -> PlantedSample:
    """Plant one sample.

    Localization heads look at the target (sum about .6); sinks at three fixed single cells (.7); bottom-row heads at
    two stretches of the last row (.6); diffuse ones at random cells (.5); idle ones at the target, but hardly at all
    (.05); early ones at the target, from the first two layers (.9); all others at random cells (.1). `noise` is the
    share of each head's attention that is spread over all cells.
    """
    rng = np.random.default_rng(seed)
    target = random_target(rng)
    maps = rng.gamma(0.3, 1.0, (NUM_LAYERS, NUM_HEADS, *GRID_SHAPE))
    sums = rng.uniform(0.08, 0.12, (NUM_LAYERS, NUM_HEADS))
    for heads, shape, total in (
        (LOCALIZATION_HEADS, target_map(target), 0.6),
        (SINK_HEADS, sink_map(), 0.7),
        (BOTTOM_ROW_HEADS, bottom_row_map(), 0.6),
        (IDLE_HEADS, target_map(target), 0.05),
        (EARLY_HEADS, target_map(target), 0.9),
        (DIFFUSE_HEADS, None, 0.5),
    ):
        for head in heads:
            if shape is not None:
                maps[head] = shape * rng.uniform(0.8, 1.2, GRID_SHAPE)
            sums[head] = total * rng.uniform(0.95, 1.05)
    background = rng.uniform(0.5, 1.5, maps.shape)
    maps = (1 - noise) * normalize(maps) + noise * normalize(background)
    attention = (maps * sums[..., None, None]).reshape(NUM_LAYERS, NUM_HEADS, -1)
    return PlantedSample(attention.astype(np.float32), target)


def plant_dataset(num_samples: int, noise: float = 0.1, seed: int = 0) -> list[PlantedSample]:
    return [plant_sample(1000 * seed + index, noise) for index in range(num_samples)]


def planted_scores(samples: list[PlantedSample], **options: object) -> DatasetScores:
    return stack_scores(score_heads(sample.attention, GRID_SHAPE, **options) for sample in samples)


def random_target(rng: np.random.Generator) -> Cells:
    height, width = rng.integers(3, 7, 2)
    row, col = rng.integers(0, 15 - height), rng.integers(0, 16 - width)
    return int(row), int(col), int(row + height), int(col + width)


def target_map(target: Cells) -> np.ndarray:
    row0, col0, row1, col1 = target
    shape = np.zeros(GRID_SHAPE)
    shape[row0:row1, col0:col1] = 1
    return shape


def sink_map() -> np.ndarray:
    shape = np.zeros(GRID_SHAPE)
    shape[[1, 6, 12], [13, 2, 10]] = 1
    return shape


def bottom_row_map() -> np.ndarray:
    shape = np.zeros(GRID_SHAPE)
    shape[-1, 2:6] = 1
    shape[-1, 10:13] = 1
    return shape


def normalize(maps: np.ndarray) -> np.ndarray:
    return maps / maps.sum(axis=(-2, -1), keepdims=True)
