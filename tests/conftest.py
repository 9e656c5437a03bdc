"""Fixtures that several test files share: planted attention, small images, clean environment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from lab.records import CollectedAttention, Grid, Sample

# The same examples in every run, however slow the machine: a test must not fail now and then. To look for examples of
# other kinds, run pytest with --hypothesis-profile=default.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")


def planted_attention(
    layers: int = 6,
    heads: int = 4,
    grid_shape: tuple[int, int] = (8, 8),
    target_cells: tuple[int, int, int, int] = (2, 3, 4, 6),
    target_heads: tuple[tuple[int, int], ...] = ((3, 1), (4, 2), (5, 0)),
    seed: int = 0,
) -> np.ndarray:
    """Make attention in which a few heads look at one block of cells and all others at scattered specks.

    Args:
        layers: Number of layers.
        heads: Heads a layer.
        grid_shape: Rows and columns of the grid.
        target_cells: Half-open block (row0, col0, row1, col1) that the target heads look at.
        target_heads: (layer, head) of those heads.
        seed: Seed of the specks.

    Returns:
        `[layers, heads, rows * cols]` float32; sums are .05 to .2 for the others and .5 and more for the target heads.
    """
    rng = np.random.default_rng(seed)
    rows, cols = grid_shape
    attention = np.zeros((layers, heads, rows, cols))
    attention[..., ::3, ::3] = rng.uniform(0.5, 1.0, attention[..., ::3, ::3].shape)
    attention *= rng.uniform(0.05, 0.2, (layers, heads, 1, 1)) / attention.sum(axis=(2, 3), keepdims=True)
    row0, col0, row1, col1 = target_cells
    for order, (layer, head) in enumerate(target_heads):
        block = np.zeros(grid_shape)
        block[row0:row1, col0:col1] = 1.0
        attention[layer, head] = block / block.sum() * (0.6 - 0.02 * order)
    return attention.reshape(layers, heads, rows * cols).astype(np.float32)


@pytest.fixture
def make_collected() -> Callable[..., CollectedAttention]:
    """Give a function that makes the collected attention of one sample, planted."""

    def make(sample_id: str = "a", image_file: str = "x.png", query: str = "the bird", **planted) -> CollectedAttention:
        attention = planted_attention(**planted)
        rows, cols = planted.get("grid_shape", (8, 8))
        grid = Grid(rows, cols, 0.0, -20.0, 160 / cols, 160 / rows)
        meta = {"model_name": "fake/model", "patch_size": 14, "conv_mode": "referseg"}
        return CollectedAttention(attention, grid, (160, 120), Sample(sample_id, image_file, query), meta)

    return make


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., str]:
    """Give a function that writes a small picture and returns its path."""

    def make(name: str = "x.png", size_wh: tuple[int, int] = (160, 120)) -> str:
        from PIL import Image

        path = tmp_path / name
        Image.new("RGB", size_wh, (120, 160, 200)).save(path)
        return str(path)

    return make


def pytest_configure() -> None:
    """Obey Ctrl-C, and let the programs that tests start obey it, also where a shell runs this behind."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how to get this order of the tests again."""
    seed = config.getoption("randomly_seed", None)
    if isinstance(seed, int):
        terminalreporter.write_line(f"The order of the tests was random; make test SEED={seed} gives it again.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left with one of them at the end.

    Within a file, and among the others, the order stays random.
    """
    longest_first = ("test_readme", "test_end_to_end", "test_benchmarks", "test_picturebook_train", "test_pipeline")
    items.sort(key=lambda item: next((n for n, name in enumerate(longest_first) if name in item.nodeid), 99))
