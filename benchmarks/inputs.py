"""Makes what is measured on: pictures, queries, attention, prediction files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lab.records import CollectedAttention, Grid, Sample
from lab.storage.attention_files import save_attention
from lab.storage.paths import OutputPaths

PICTURE_WH = (640, 480)
GRID_7B = (24, 24)
SHAPE_7B = (32, 32, *GRID_7B)
QUERIES = (
    "the woman in the red coat",
    "left dog",
    "the man on the right holding a cup",
    "small white boat behind the big one",
    "second chair from the left",
    "blue car",
    "the child in front wearing a hat",
    "the bird on the lower branch",
    "person at the very back",
    "the plate with the slice of cake",
    "brown horse closest to us",
    "the table under the window",
    "girl with the green umbrella",
    "the open suitcase on the bed",
    "top right orange",
    "the bus that is partly hidden",
)


def write_pictures(directory: Path, count: int, size_wh: tuple[int, int] = PICTURE_WH) -> list[str]:
    """Write smooth random pictures as JPEG; returns their paths."""
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = directory / f"{number:04}.jpg"
        Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def make_samples(pictures: Sequence[str], queries_per_image: int) -> list[Sample]:
    """Ask of each picture as many queries."""
    return [
        Sample(f"{number}-{position}", picture, QUERIES[position % len(QUERIES)])
        for number, picture in enumerate(pictures)
        for position in range(queries_per_image)
    ]


def make_attention(seed: int, shape: Sequence[int] = SHAPE_7B, smoothness: float = 1.0) -> np.ndarray:
    """Random attention: blobs with long tails, each head with a share of attention for the image, .02 to .6.

    Args:
        seed: Of the random numbers.
        shape: Layers, heads, rows, columns.
        smoothness: Size of the blobs in cells; 0 for single cells, of which as many components as possible come.

    Returns:
        `[layers, heads, rows * cols]`, float32, with the precision of float16, as files hold it.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    layers, heads, rows, cols = shape
    noise = gaussian_filter(rng.standard_normal(shape), (0, 0, smoothness, smoothness), mode="nearest")
    weights = np.exp(1.5 * noise / noise.std()).reshape(layers, heads, rows * cols)
    shares = np.exp(rng.uniform(np.log(0.02), np.log(0.6), (layers, heads, 1)))
    return (weights / weights.sum(axis=2, keepdims=True) * shares).astype(np.float16).astype(np.float32)


def make_collected(sample: Sample, attention: np.ndarray, grid_shape: tuple[int, int] = GRID_7B) -> CollectedAttention:
    """Attention as if it had been collected for a sample on a padded picture."""
    width, height = PICTURE_WH
    rows, cols = grid_shape
    grid = Grid(rows, cols, 0.0, -(width - height) / 2, width / cols, width / rows)
    meta = {"model_name": "benchmark", "prompt_template": "referseg", "patch_size": 14}
    return CollectedAttention(attention, grid, PICTURE_WH, sample, meta)


def write_attention_files(directory: Path, count: int, shape: Sequence[int] = SHAPE_7B) -> list[Path]:
    """Write attention files as a batch would; the heads of one file are those of another in another order."""
    directory.mkdir(parents=True, exist_ok=True)
    base = make_attention(0, shape)
    rng = np.random.default_rng(1)
    paths = []
    for number in range(count):
        attention = base[:, rng.permutation(shape[1])]
        path = OutputPaths(directory, f"sample-{number:05}", 3).attention(True)
        save_attention(path, make_collected(Sample(path.name, "", "the bird"), attention, (shape[2], shape[3])))
        paths.append(path)
    return paths


def write_predictions(directory: Path, count: int) -> tuple[Path, Path]:
    """Write a data set with boxes and a prediction for each row; returns the data set and the predictions."""
    predictions = directory / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (box, guess) in enumerate(_boxes(count)):
        name = f"sample-{number:05}"
        x0, y0, x1, y1 = box
        rows.append(json.dumps({"id": name, "bbox": [x0, y0, x1 - x0, y1 - y0]}))
        record = {
            "id": name,
            "image_file": f"images/{name}.jpg",
            "query": QUERIES[number % len(QUERIES)],
            "bbox_xyxy": guess,
            "image_size": list(PICTURE_WH),
            "selected_heads": [],
            "heads_source": "heads_file",
            "heads_notes": [],
        }
        OutputPaths(predictions, name, 3).bbox_json.write_text(json.dumps(record), encoding="utf-8")
    dataset = directory / "dataset.jsonl"
    dataset.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return dataset, predictions


def _boxes(count: int) -> Iterator[tuple[list[float], list[float]]]:
    """Pairs of a true box and one that is a little beside it."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        x0, y0 = rng.uniform(0, 400), rng.uniform(0, 300)
        box = np.array([x0, y0, x0 + rng.uniform(20, 200), y0 + rng.uniform(20, 150)])
        yield box.tolist(), (box + rng.uniform(-9, 9, 4)).tolist()
