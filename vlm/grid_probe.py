"""Does a declared grid fit what a model does? Two probes that know nothing of the family, and a verdict.

*Centres*: the processor is shown a black, a white and two ramp pictures, which tells where in the picture each number
of its pixel tensor comes from, whatever the layout; a gradient then tells to which of them an image token listens.
*Patches*: noise is painted into one declared cell at a time; its own token should change most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from lab.regions import Region, Regions
from vlm.image_features import image_features

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

logger = logging.getLogger(__name__)

Size = tuple[int, int]
# A picture -> the model's inputs, with any prompt.
Process = Callable[["Image.Image"], Mapping[str, "torch.Tensor"]]

# Numbers whose share in a token is below this part of the largest are what it hears of all the picture.
_PEAK = 0.1
# Distances in cells: right grids are measured at 0.01 to 0.15, wrong ones at 0.3 and more.
_AGREES, _DISAGREES = 0.2, 0.5
_NEAR = 0.8
# Gradients for a token; the second steadies the centre a little.
_DIRECTIONS = 2


@dataclass(frozen=True)
class GridVerdict:
    """What the probes say of a grid.

    Attributes:
        verdict: `agrees`, `disagrees` or `cannot tell`.
        cells_off: Median distance between measured and declared centres in cells, the larger of both axes; None where
            the tower has no gradient. This is the number that tells.
        hits: Share of painted cells whose own token changed most.
        near_hits: The same with the eight neighbours.
        deaf: Number of sampled cells whose token listens to no pixel, as separators do.
    """

    verdict: str
    cells_off: Optional[float]
    hits: float
    near_hits: float
    deaf: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check_grid(
    model: nn.Module,
    process: Process,
    wh: Size,
    regions: Regions,
    image_ids: frozenset[int],
    *,
    samples: int = 24,
    seed: int = 0,
) -> GridVerdict:
    """Run both probes on a sample of the cells.

    Args:
        model: The whole model.
        process: Its processor with any prompt.
        wh: Size of the pictures shown.
        regions: The declared ones, for that size.
        image_ids: Ids of the image's tokens.
        samples: Cells looked at by each probe.
        seed: Of the sample and the noise.
    """
    generator = np.random.default_rng(seed)
    cells = [(region, cell) for region in regions.regions for cell in _visible_cells(region, wh)]
    sample = [cells[number] for number in generator.permutation(len(cells))[:samples]]
    off, deaf = _centres_off(model, process, wh, sample, image_ids, seed)
    hits, near = _patch_hits(model, process, wh, sample, image_ids, generator)
    return GridVerdict(_judged(off, deaf, hits, near), off, hits, near, deaf)


def _judged(off: float | None, deaf: int, hits: float, near: float) -> str:
    if deaf:
        return "disagrees"  # a separator was taken for a patch
    if off is None:
        return "agrees" if hits >= _NEAR else "cannot tell"  # a quantiser may answer a touch anywhere
    if off <= _AGREES and near >= _NEAR:
        return "agrees"
    return "disagrees" if off >= _DISAGREES or near < _DISAGREES else "cannot tell"


# Centres --------------------------------------------------------------------------------------------------------------


def pixel_places(process: Process, wh: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (x and y, in pixels of the picture) of the pixel tensor's numbers; NaN where they are padding."""
    import torch
    from PIL import Image

    width, height = wh
    ramp_x = np.rint((np.arange(width) + 0.5) / width * 255).astype(np.uint8)[None].repeat(height, axis=0)
    ramp_y = np.rint((np.arange(height) + 0.5) / height * 255).astype(np.uint8)[:, None].repeat(width, axis=1)
    made = []
    for levels in (np.zeros_like(ramp_x), np.full_like(ramp_x, 255), ramp_x, ramp_y):
        inputs = process(Image.fromarray(np.repeat(levels[..., None], 3, axis=2)))
        made.append(inputs[_pixel_key(inputs)].detach().double())
    black, white, along_x, along_y = made
    span = torch.where((white - black).abs() < 1e-6, float("nan"), white - black)
    return (along_x - black) / span * width, (along_y - black) / span * height


def _pixel_key(inputs: Mapping[str, torch.Tensor]) -> str:
    """Name of the largest tensor of real numbers, which holds the pixels."""
    return max((key for key in inputs if inputs[key].is_floating_point()), key=lambda key: inputs[key].numel())


def measured_centres(
    model: nn.Module,
    process: Process,
    wh: Size,
    tokens: Sequence[int],
    image_ids: frozenset[int],
    *,
    seed: int = 0,
    directions: int = _DIRECTIONS,
) -> np.ndarray:
    """Where in the picture image tokens listen, `[tokens, 2]` x and y; NaN for one that listens to no pixel.

    The share of a pixel is the squared gradient of random directions of the token's embedding, which lets its own patch
    outweigh all others.

    Raises:
        RuntimeError: If there is no gradient (quantised pictures).
    """
    import torch
    from PIL import Image

    places = pixel_places(process, wh)
    noise = np.random.default_rng(seed).integers(0, 256, (wh[1], wh[0], 3), dtype=np.uint8)
    inputs = dict(process(Image.fromarray(noise)))
    key = _pixel_key(inputs)
    with torch.enable_grad():
        inputs[key] = pixels = inputs[key].detach().clone().requires_grad_(True)
        features = image_features(model, inputs, image_ids)
        ways = torch.randn(directions, features.shape[1], generator=torch.Generator().manual_seed(seed)).to(features)
        return np.array([_centre(features[token], ways, pixels, places) for token in tokens]).reshape(-1, 2)


def _centre(
    feature: torch.Tensor, ways: torch.Tensor, pixels: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor]
) -> list[float]:
    import torch

    share = torch.zeros_like(pixels, dtype=torch.float64)
    for way in ways:
        [gradient] = torch.autograd.grad(feature @ way, pixels, retain_graph=True)
        share += gradient.double() ** 2
    share = torch.where(places[0].isnan().to(share.device), 0.0, share)
    share = torch.where(share < _PEAK * share.max(), 0.0, share)
    share = (share / share.sum()).cpu()
    return [float((share * place.cpu().nan_to_num()).sum()) for place in places]


def _centres_off(
    model: nn.Module,
    process: Process,
    wh: Size,
    sample: Sequence[tuple[Region, tuple[int, int]]],
    image_ids: frozenset[int],
    seed: int,
) -> tuple[float | None, int]:
    """Median distance in cells, and the number of deaf tokens."""
    tokens = [int(region.token_of[cell]) for region, cell in sample]
    try:
        seen = measured_centres(model, process, wh, tokens, image_ids, seed=seed)
    except RuntimeError:
        return None, 0
    # A token cannot listen to padding: its centre is that of the visible part of its cell.
    boxes = np.array([_visible_box(region, cell, wh) for region, cell in sample], dtype=np.float64)
    told = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.array([[region.grid.cell_w, region.grid.cell_h] for region, _ in sample])
    hears = np.isfinite(seen).all(axis=1)
    if not hears.any():
        return None, int((~hears).sum())
    return float(np.median(np.abs((seen - told) / size).max(axis=1)[hears])), int((~hears).sum())


# Patches --------------------------------------------------------------------------------------------------------------


def _patch_hits(
    model: nn.Module,
    process: Process,
    wh: Size,
    sample: Sequence[tuple[Region, tuple[int, int]]],
    image_ids: frozenset[int],
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Shares of painted cells whose own token, or one of its neighbours', changed most within the region."""
    import torch
    from PIL import Image

    def features(levels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = image_features(model, process(Image.fromarray(levels)), image_ids)
        return np.asarray(found.float().cpu().numpy())

    grey = np.full((wh[1], wh[0], 3), 127, dtype=np.uint8)
    still = features(grey)
    moved: list[np.ndarray] = []
    for region, cell in sample:
        x1, y1, x2, y2 = _visible_box(region, cell, wh)
        painted = grey.copy()
        painted[y1:y2, x1:x2] = generator.integers(0, 2, (y2 - y1, x2 - x1, 3), dtype=np.uint8) * 255
        moved.append(np.linalg.norm(features(painted) - still, axis=1))
    # Some tokens move at every touch: each is compared with its own usual change.
    change = np.stack(moved)
    change = change / (np.median(change, axis=0) + 0.05 * change.mean() + 1e-12)
    away = np.array([_distance(row[region.token_of], cell) for row, (region, cell) in zip(change, sample)])
    return float((away == 0).mean()), float((away <= 1).mean())


def _distance(change: np.ndarray, cell: tuple[int, int]) -> int:
    """Cells, along the longer axis, from a cell to the one that changed most."""
    row, col = np.unravel_index(int(change.argmax()), change.shape)
    return max(abs(int(row) - cell[0]), abs(int(col) - cell[1]))


def _visible_cells(region: Region, wh: Size) -> list[tuple[int, int]]:
    """Cells with a token that lie in the picture for the greater part."""
    area = region.grid.cell_w * region.grid.cell_h

    def seen(cell: tuple[int, int]) -> bool:
        x1, y1, x2, y2 = _visible_box(region, cell, wh)
        return bool(region.token_of[cell] >= 0 and (x2 - x1) * (y2 - y1) > 0.5 * area)

    rows, cols = region.grid.shape
    return [(row, col) for row in range(rows) for col in range(cols) if seen((row, col))]


def _visible_box(region: Region, cell: tuple[int, int], wh: Size) -> tuple[int, int, int, int]:
    """What of a cell lies in the picture, in whole pixels, at least one."""
    grid = region.grid
    x1, y1 = grid.x0 + cell[1] * grid.cell_w, grid.y0 + cell[0] * grid.cell_h
    left, right = (int(np.clip(round(x), 0, wh[0])) for x in (x1, x1 + grid.cell_w))
    top, bottom = (int(np.clip(round(y), 0, wh[1])) for y in (y1, y1 + grid.cell_h))
    return left, top, max(right, min(left + 1, wh[0])), max(bottom, min(top + 1, wh[1]))
