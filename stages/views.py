"""A collector that looks at each picture four times, shifted by half a cell, and gives one map of half cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from finer.views import SHIFTS, ViewPlace, average_maps, view_places
from lab.records import CollectedAttention, Sample
from stages.loading import Collector

if TYPE_CHECKING:
    from PIL import Image

    from collector import Collected

LONGEST_SIDE = 4096
"""Of a picture in its views, in pixels: far above what any tower sees of it."""


@dataclass(frozen=True)
class _Group:
    """Rows about one picture, and where the files of its views are.

    Attributes:
        rows: The rows.
        image_size_wh: Size of the picture.
        shrunk: How many of its pixels, across and down, one pixel of the views is.
        places: Where the picture lies in each view; none where the picture cannot be read.
        files: Image files of the views; the picture's own where there are none.
    """

    rows: tuple[Sample, ...]
    image_size_wh: tuple[int, int]
    shrunk: tuple[float, float]
    places: tuple[ViewPlace, ...]
    files: tuple[str, ...]

    def samples(self) -> Iterator[Sample]:
        """What the model is asked: all rows of the first view, then of the second, and so on."""
        for file in self.files:
            yield from (replace(row, image_file=file) for row in self.rows)


class ViewsCollector:
    """Runs another collector on the four views of each picture.

    A view is a picture with a grid of its own, so that nothing below needs to know of it. Its file is there only while
    the view is read.
    """

    def __init__(self, inner: Collector, *, cells: int, background: tuple[int, ...]) -> None:
        """Set up a collector.

        Args:
            inner: Collects the attention of one view; it must pad pictures to squares, and see squares as they are.
            cells: Cells along a side of its grid.
            background: Colour of the padding, RGB.
        """
        self.inner = inner
        self.cells = cells
        self.background = background

    def collect(self, samples: Iterable[Sample]) -> Iterator[Collected]:
        """Collect the attention of each sample, averaged over its picture's views on a grid of half cells.

        Args:
            samples: What to ask of which image; rows about one image follow one another.

        Yields:
            For each sample, in order, its attention or the reason why there is none.
        """
        waiting: deque[_Group] = deque()
        with TemporaryDirectory(prefix="views-") as directory:
            results = iter(self.inner.collect(self._asked(samples, Path(directory), waiting)))
            while first := list(islice(results, 1)):
                group = waiting.popleft()
                rest = islice(results, len(group.rows) * len(SHIFTS) - 1)
                yield from _merge(group, [*first, *rest])
                for file in group.files if group.places else ():
                    with suppress(FileNotFoundError):
                        Path(file).unlink()

    def _asked(self, samples: Iterable[Sample], directory: Path, waiting: deque[_Group]) -> Iterator[Sample]:
        for number, (_, rows) in enumerate(groupby(samples, key=lambda sample: sample.image_file)):
            group = self._prepare(tuple(rows), directory / str(number))
            waiting.append(group)
            yield from group.samples()

    def _prepare(self, rows: tuple[Sample, ...], stem: Path) -> _Group:
        """Write the views of a picture; one that cannot be read is left to the inner collector, which says why."""
        from vlm.images import load_image

        try:
            image = load_image(rows[0].image_file)
        except (ValueError, MemoryError):
            return _Group(rows, (0, 0), (1.0, 1.0), (), (rows[0].image_file,) * len(SHIFTS))
        small = _shrink(image)
        places = view_places(small.size, self.cells)
        files = tuple(f"{stem}-{view}.bmp" for view in range(len(places)))
        for place, file in zip(places, files):
            place.render(small, self.background).save(file)
        shrunk = (image.width / small.width, image.height / small.height)
        return _Group(rows, image.size, shrunk, places, files)


def _shrink(image: Image.Image) -> Image.Image:
    """Make a picture smaller whose square canvas would not fit into memory."""
    longest = max(image.size)
    if longest <= LONGEST_SIDE:
        return image
    width, height = (max(1, round(length * LONGEST_SIDE / longest)) for length in image.size)
    return image.resize((width, height))


def _merge(group: _Group, outcomes: Sequence[Collected]) -> Iterator[Collected]:
    """One outcome for each row, of the outcomes of all views."""
    for number, row in enumerate(group.rows):
        of_row = outcomes[number :: len(group.rows)]
        collected = [outcome for outcome in of_row if isinstance(outcome, CollectedAttention)]
        failed = next((outcome for outcome in of_row if not isinstance(outcome, CollectedAttention)), None)
        if failed is not None:
            yield replace(failed, sample=replace(failed.sample, image_file=row.image_file))
        elif not group.places:
            raise RuntimeError(f"the picture of {row.id!r} changed while it was read")
        else:
            yield _average(row, group, collected)


def _average(row: Sample, group: _Group, views: Sequence[CollectedAttention]) -> CollectedAttention:
    """The attention of one row over half cells."""
    views = [view.seen_as() for view in views]
    grids = [place.grid_of_picture(view.grid) for place, view in zip(group.places, views)]
    maps = [view.attention.reshape(*view.attention.shape[:2], *view.grid.shape) for view in views]
    averaged, grid = average_maps(maps, grids)
    across, down = group.shrunk
    grid = replace(grid, x0=grid.x0 * across, y0=grid.y0 * down, cell_w=grid.cell_w * across, cell_h=grid.cell_h * down)
    first = views[0]
    meta = {**first.meta, "image_file": row.image_file, "image_size": list(group.image_size_wh), "views": len(views)}
    return replace(
        first,
        attention=averaged.reshape(*averaged.shape[:2], -1),
        grid=grid,
        image_size_wh=group.image_size_wh,
        sample=replace(first.sample, image_file=row.image_file),
        meta=meta,
        regions=None,
    )
