"""A collector without a model: every sample gets planted attention that lights up the block of cells of its query."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import planted_attention

from lab.records import CollectedAttention, Grid, Sample

LAYERS, HEADS = 6, 4
LOCALIZATION_HEADS = ((3, 1), (4, 2), (5, 0))
IMAGE_SIZE_WH = (160, 120)
# A grid of 8 x 8 cells of 20 px over the image padded to a square.
GRID = Grid(8, 8, 0.0, -20.0, 20.0, 20.0)


@dataclass(frozen=True)
class Failure:
    """What a collector yields for a sample that it cannot read."""

    sample: Sample
    reason: str


def target_cells(query: str) -> tuple[int, int, int, int]:
    """Half-open block (row0, col0, row1, col1) within the image, derived from the query."""
    digest = hashlib.sha256(query.encode()).digest()
    row, col = 1 + digest[0] % 4, digest[1] % 5
    return row, col, row + 1 + digest[2] % 2, col + 2 + digest[3] % 2


def target_box(query: str) -> list[float]:
    """The same block in pixels, as xyxy."""
    row0, col0, row1, col1 = target_cells(query)
    return [20.0 * col0, 20.0 * row0 - 20, 20.0 * col1, 20.0 * row1 - 20]


def collect_one(sample: Sample, layers: int = LAYERS) -> CollectedAttention:
    """Plant the attention of one sample."""
    seed = int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:4], "big")
    attention = planted_attention(LAYERS, HEADS, GRID.shape, target_cells(sample.query), LOCALIZATION_HEADS, seed=seed)
    meta = {
        "model_name": "fake/model",
        "prompt_template": "referseg",
        "patch_size": 14,
        "num_layers": LAYERS,
        "attn_dtype": "float32",
    }
    return CollectedAttention(attention[:layers], GRID, IMAGE_SIZE_WH, sample, meta)


@dataclass
class FakeCollector:
    """Yields planted attention, fails for images called broken, and remembers what it was asked.

    Attributes:
        seconds: Time that each sample takes.
        company: Pictures in one forward pass whose rows change each other in the last place, as those of a model do;
            0 for rows that depend on nothing else.
        asked: Ids, in the order in which they came.
        stop_layers: What each load asked for.
    """

    seconds: float = 0.0
    company: int = 0
    asked: list[str] = field(default_factory=list)
    stop_layers: list[Any] = field(default_factory=list)

    def load(self, model: Any, stop_layer: Any = None) -> FakeCollector:
        """Stand in for `stages.loading.load_collector`."""
        self.stop_layers.append(stop_layer)
        return self

    def collect(self, samples: Iterable[Sample]) -> Iterator[Any]:
        """Yield an outcome for each sample, in order."""
        for together in self._forwards(samples):
            for sample in together:
                self.asked.append(sample.id)
                time.sleep(self.seconds)
                yield self._outcome(sample, together)

    def _forwards(self, samples: Iterable[Sample]) -> Iterator[list[Sample]]:
        """The rows of each forward pass: those of `company` pictures that follow one another."""
        if not self.company:
            yield from ([sample] for sample in samples)
            return
        pictures = itertools.groupby(samples, key=lambda sample: sample.image_file)
        rows = (list(group) for _, group in pictures)
        while together := list(itertools.islice(rows, self.company)):
            yield list(itertools.chain.from_iterable(together))

    def _outcome(self, sample: Sample, together: list[Sample]) -> Any:
        if "broken" in sample.image_file:
            return Failure(sample, f"Expected {sample.image_file!r} to be a readable image, but got a broken file.")
        stop_layer = self.stop_layers[-1]
        collected = collect_one(sample, LAYERS if stop_layer is None else stop_layer + 1)
        if not self.company:
            return collected
        digest = hashlib.sha256("\n".join(other.id for other in together).encode()).digest()
        factor = np.float32(1 - digest[0] / 10_000)
        return replace(collected, attention=collected.attention * factor)


def write_rows(directory: Path, count: int, images: int = 3) -> Path:
    """Write a JSONL file with its images; the ground truth is the planted box."""
    from PIL import Image

    rows = []
    for number in range(images):
        Image.new("RGB", IMAGE_SIZE_WH, (90, 60 * number, 120)).save(directory / f"image{number}.png")
    for number in range(count):
        query = f"thing number {number}"
        x0, y0, x1, y1 = target_box(query)
        rows.append(
            {
                "id": f"row{number}",
                "prompt": query,
                "image_path": f"image{number % images}.png",
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
        )
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_results(directory: Path) -> dict[str, Any]:
    """Everything in a directory of results, in a form that can be compared."""
    from lab.storage.attention_files import load_attention

    results: dict[str, Any] = {}
    for path in sorted(directory.iterdir()):
        if path.name.endswith((".pkl.gz", ".pkl")) and not path.name.endswith("_analysis.pkl"):
            loaded = load_attention(path)
            results[path.name] = (np.asarray(loaded.attention).tolist(), loaded.meta)
        else:
            results[path.name] = path.read_bytes()
    return results
