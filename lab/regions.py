"""Which image token lies where: the regions of a picture, and their attention as one map.

A picture that is cut into tiles, or shown a second time as a thumbnail, has several regions; most models have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.grids import Grid

KINDS = ("whole", "tile", "thumbnail")
MODES = ("merged", "thumbnail", "tiles")
SOURCES = ("rule", "measured")
_MOST_TOKENS = 2**31
# Cells of a merged map for each cell of the regions: tiles with a thumbnail make less than one.
_FINEST = 16


@dataclass(frozen=True)
class Region:
    """A grid over a part of the picture, with the token of each of its cells.

    Attributes:
        kind: `whole` (the picture, or all tiles joined), `tile` or `thumbnail`.
        grid: Where its cells lie, in pixels of the original image; padding may reach over the edges.
        token_of: `[rows, cols]` integers: which of the image's tokens a cell is, counted in the order of the prompt;
            -1 for none.
    """

    kind: str
    grid: Grid
    token_of: np.ndarray

    def __post_init__(self) -> None:
        """Check that cells and tokens fit each other."""
        if self.kind not in KINDS:
            raise ValueError(f"Expected the kind of a region to be one of {', '.join(KINDS)}, but got {self.kind!r}.")
        if self.token_of.shape != self.grid.shape:
            raise ValueError(
                f"Expected a region to name a token for each of its {self.grid.rows} x {self.grid.cols} cells, "
                f"but got {' x '.join(map(str, self.token_of.shape))}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `meta`: the tokens as first and step from row to row where they are that regular."""
        first = int(self.token_of[0, 0])
        step = int(self.token_of[1, 0]) - first if self.grid.rows > 1 else self.grid.cols
        data = {"kind": self.kind, "grid": asdict(self.grid)}
        if np.array_equal(self.token_of, row_major(*self.grid.shape, first=first, row_step=step)):
            return {**data, "first_token": first, "row_step": step}
        return {**data, "token_of": self.token_of.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], num_tokens: int) -> Region:
        """The inverse of `to_dict`.

        Raises:
            ValueError: If a number is missing or of another type, or there are more cells than tokens.
        """
        try:
            grid = Grid(**data["grid"])
            rows, cols = whole_number(grid.rows), whole_number(grid.cols)
            if rows * cols > num_tokens:
                raise ValueError(f"{rows} x {cols} cells for {num_tokens} tokens")
            if "token_of" in data:
                tokens = np.array([[whole_number(token) for token in row] for row in data["token_of"]], dtype=np.int64)
            else:
                first, step = whole_number(data["first_token"]), whole_number(data["row_step"])
                tokens = row_major(rows, cols, first=first, row_step=step)
            return cls(data["kind"], grid, tokens)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ValueError(
                f"Expected a region to have kind, grid and tokens, but got a problem: {reason}. Collect again."
            ) from error


@dataclass(frozen=True)
class Regions:
    """All regions of a picture.

    Attributes:
        regions: At least one.
        num_tokens: Tokens that carry the image (V), separators with the image's id counted.
        source: `rule` where a family's formula gave them, `measured` where the grid probe did.
    """

    regions: tuple[Region, ...]
    num_tokens: int
    source: str = "rule"

    def __post_init__(self) -> None:
        """Check that each token belongs to one cell at most."""
        if not self.regions:
            raise ValueError("Expected a picture to have at least 1 region, but got none.")
        tokens = np.concatenate([region.token_of.ravel() for region in self.regions])
        tokens = tokens[tokens >= 0]
        if len(tokens) and int(tokens.max()) >= self.num_tokens:
            raise ValueError(
                f"Expected the regions to lie within the image's {self.num_tokens} tokens, but got token "
                f"{int(tokens.max())} (counted from 0). The grid rule does not fit this model."
            )
        if len(np.unique(tokens)) != len(tokens):
            raise ValueError("Expected each image token to belong to one cell at most, but got one with two cells.")

    @classmethod
    def single(cls, grid: Grid) -> Regions:
        """The regions of a picture with one grid and no other tokens, such as LLaVA-1.5's."""
        return cls((Region("whole", grid, row_major(*grid.shape)),), grid.num_cells)

    @property
    def separators(self) -> tuple[int, ...]:
        """Tokens that belong to no cell, such as the newlines of LLaVA-NeXT."""
        used = {int(token) for region in self.regions for token in region.token_of.ravel()}
        return tuple(token for token in range(self.num_tokens) if token not in used)

    @property
    def is_single(self) -> bool:
        """Whether each token is the cell of the same number of one grid, so that attention is a map as it stands."""
        first = self.regions[0]
        return len(self.regions) == 1 and np.array_equal(first.token_of.ravel(), np.arange(self.num_tokens))

    def chosen(self, mode: str) -> tuple[Region, ...]:
        """The regions that one way to look at a picture uses.

        Args:
            mode: `merged` (all), `thumbnail` or `tiles` (all but the thumbnail); a picture with one region gives it
                whatever the mode.

        Raises:
            ValueError: If the mode is unknown, or the picture has none of that kind.
        """
        if mode not in MODES:
            raise ValueError(f"Expected logic.regions to be one of {', '.join(MODES)}, but got {mode!r}.")
        if mode == "merged" or len(self.regions) == 1:
            return self.regions
        wanted = tuple(region for region in self.regions if (region.kind == "thumbnail") == (mode == "thumbnail"))
        if not wanted:
            raise ValueError(
                f"Expected the picture to have a region for logic.regions={mode}, but got only "
                f"{', '.join(sorted({region.kind for region in self.regions}))}. Use logic.regions=merged."
            )
        return wanted

    def map_grid(self, mode: str = "merged") -> Grid:
        """The grid of the map that `as_map` makes: the region's own, or the finest on which all chosen ones fit."""
        return finest_grid([region.grid for region in self.chosen(mode)])

    def as_map(self, attention: np.ndarray, mode: str = "merged") -> np.ndarray:
        """Attention as one map over the picture.

        Each token's share is spread evenly over its cell; where cells of several regions lie over one another their
        shares are added, so that the map keeps the sum over all chosen cells.

        Args:
            attention: `[..., V]`.
            mode: See `chosen`.

        Returns:
            `[..., rows, cols]` over `map_grid(mode)`, of the dtype given.
        """
        chosen, target = self.chosen(mode), self.map_grid(mode)
        total = np.zeros((*attention.shape[:-1], *target.shape), dtype=attention.dtype)
        for region in chosen:
            total += _spread(cells_of(attention, region.token_of), region.grid, target)
        return total

    def to_list(self) -> list[dict[str, Any]]:
        """Plain data for `meta.regions`."""
        return [region.to_dict() for region in self.regions]

    @classmethod
    def from_list(cls, rows: Sequence[Mapping[str, Any]], num_tokens: int, source: str = "rule") -> Regions:
        """The inverse of `to_list`.

        Raises:
            ValueError: If the rows are not regions of so many tokens; nothing larger than these is made of them.
        """
        if source not in SOURCES:
            raise ValueError(f"Expected regions to come from {' or '.join(SOURCES)}, but got {str(source)[:40]!r}.")
        if len(rows) > num_tokens:
            raise ValueError(f"Expected at most {num_tokens} regions, but got {len(rows)}.")
        return cls(tuple(Region.from_dict(row, num_tokens) for row in rows), num_tokens, source)


def whole_number(value: object) -> int:
    """A whole number no larger than tokens are counted.

    Raises:
        TypeError: If it is none.
    """
    if type(value) is not int or abs(value) > _MOST_TOKENS:
        raise TypeError(f"{str(value)[:40]!r} where a count of tokens belongs")
    return value


def row_major(rows: int, cols: int, *, first: int = 0, row_step: int | None = None) -> np.ndarray:
    """Tokens `[rows, cols]` that follow one another row by row.

    Args:
        rows: Number of rows.
        cols: Number of columns.
        first: The first cell's token.
        row_step: Tokens from one row's first to the next one's; more than `cols` where separators end the rows.
    """
    step = cols if row_step is None else row_step
    return first + np.arange(rows)[:, None] * step + np.arange(cols)[None]


def covering(width: float, height: float, rows: int, cols: int, *, x0: float = 0.0, y0: float = 0.0) -> Grid:
    """A grid that covers a rectangle exactly."""
    return Grid(rows, cols, float(x0), float(y0), width / cols, height / rows)


def finest_grid(grids: Sequence[Grid]) -> Grid:
    """One grid over the box of all, its cells as small as the smallest.

    Raises:
        ValueError: If that were a map much larger than all of them.
    """
    if len(grids) == 1:
        return grids[0]
    boxes = np.array([grid.box_xyxy for grid in grids])
    x0, y0 = (float(value) for value in boxes[:, :2].min(axis=0))
    x1, y1 = (float(value) for value in boxes[:, 2:].max(axis=0))
    rows = max(1, round((y1 - y0) / min(grid.cell_h for grid in grids)))
    cols = max(1, round((x1 - x0) / min(grid.cell_w for grid in grids)))
    total = sum(grid.num_cells for grid in grids)
    if rows * cols > _FINEST * total:
        raise ValueError(
            f"Expected regions to have cells of about one size, but got some so small that their merged map would have "
            f"{rows} x {cols} cells for {total} of theirs. Look at one kind alone with logic.regions."
        )
    return covering(x1 - x0, y1 - y0, rows, cols, x0=x0, y0=y0)


def cells_of(attention: np.ndarray, token_of: np.ndarray) -> np.ndarray:
    """Attention `[..., V]` as `[..., rows, cols]`; 0 in cells without a token."""
    cells = attention[..., np.maximum(token_of, 0)]
    return np.where(token_of >= 0, cells, np.zeros((), dtype=attention.dtype))


def _spread(cells: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Values of one grid's cells `[..., rows, cols]` on another grid, by area."""
    if source == target:
        return cells
    down = _shares((source.y0, source.cell_h, source.rows), (target.y0, target.cell_h, target.rows))
    across = _shares((source.x0, source.cell_w, source.cols), (target.x0, target.cell_w, target.cols))
    spread: np.ndarray = down.T @ cells.astype(np.float64) @ across
    return spread.astype(cells.dtype)


def _shares(source: tuple[float, float, int], target: tuple[float, float, int]) -> np.ndarray:
    """`[source cells, target cells]`: which part of a cell lies in which, along one axis (start, step, count)."""
    from_edges = source[0] + np.arange(source[2] + 1) * source[1]
    to_edges = target[0] + np.arange(target[2] + 1) * target[1]
    low = np.maximum(from_edges[:-1, None], to_edges[None, :-1])
    high = np.minimum(from_edges[1:, None], to_edges[None, 1:])
    shares: np.ndarray = np.clip(high - low, 0, None) / source[1]
    return shares
