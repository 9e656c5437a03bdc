"""A small made-up run for the tests of the report: pictures, planted maps, boxes that `bbox.localize` gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from conftest import planted_attention
from PIL import Image

from bbox import localize
from lab.records import CollectedAttention, Grid, Sample
from report.records import Bar, BoxRules, DatasetPart, OtherRow, OtherRun, ReportRun, ReportSample

LAYERS, HEADS = 6, 4
USED = ((3, 1), (4, 2), (5, 0))
RANKED = (*USED, (2, 0), (2, 1))
RULES = BoxRules(sigma=1.0, truncate=4.0, threshold=1.0, region="largest")
GRID = Grid(8, 8, 0.0, -20.0, 20.0, 20.0)
SIZE_WH = (160, 120)
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><!-- & \u2028 \u2029 <b>"


def make_sample(directory: Path, number: int, phrase: str = "the bird", sample_id: str | None = None) -> ReportSample:
    """One picture; the target lies further right with each number, and every third box misses it."""
    rng = np.random.default_rng(number)
    path = directory / f"picture{number}.png"
    Image.fromarray(rng.integers(0, 255, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)).save(path)
    cells = (2, number % 5, 4, number % 5 + 3)
    attention = planted_attention(target_cells=cells, seed=number)
    # A bright speck elsewhere and patches of less wanted heads, so that region and number of heads matter.
    attention[4, 2, 8 * 6 + (number + 5) % 8] += 0.3
    for head in ((2, 0), (2, 1)):
        row, col = rng.integers(1, 5, 2)
        attention[head].reshape(8, 8)[row : row + 3, col : col + 3] += 0.06
    attention = (attention + 0.002 * rng.random(attention.shape)).astype(np.float32)
    sample = Sample(sample_id or f"row{number}", str(path), phrase)
    collected = CollectedAttention(attention, GRID, SIZE_WH, sample, {"model_name": "fake/model"})
    truth = (cells[1] * 20.0, 20.0, cells[3] * 20.0, 60.0) if number % 3 else (0.0, 80.0, 40.0, 120.0)
    scores = {name: rng.random((LAYERS, HEADS)) for name in ("sum", "entropy", "iou", "enrichment")}
    scores["entropy"][0, 0] = np.inf
    filtered = np.zeros((LAYERS, HEADS), dtype=int)
    filtered[:2] = 1
    return ReportSample(
        collected=collected,
        file=f"out/row{number}.pkl.gz",
        heads=USED,
        source="fixed",
        ranked=RANKED,
        filtered=filtered,
        scores=scores,
        box_xyxy=expected_box(collected, USED, RULES),
        truth_xyxy=truth,
        last_token=phrase.split()[-1],
    )


def expected_box(
    collected: CollectedAttention, heads: tuple[tuple[int, int], ...], rules: BoxRules
) -> tuple[float, float, float, float] | None:
    """What bbox.py gives."""
    maps = np.stack([collected.attention[head] for head in heads]).reshape(-1, *collected.grid.shape)
    return localize(
        maps,
        collected.grid,
        collected.image_size_wh,
        sigma=rules.sigma,
        truncate=rules.truncate,
        region=rules.region,
        relative_threshold=rules.threshold,
    ).box_xyxy


def make_run(num_samples: int, **changes: object) -> ReportRun:
    """What the pictures share."""
    frequency = np.zeros((LAYERS, HEADS))
    for place, head in enumerate(USED):
        frequency[head] = 0.9 - 0.1 * place
    dataset = DatasetPart(
        num_samples,
        "Made up.",
        mean_sums=np.linspace(0, 1, LAYERS * HEADS).reshape(LAYERS, HEADS),
        threshold=0.4,
        frequency=frequency,
        scores=[Bar("mean IoU", 0.7, 0.6, 0.8)],
        audit=[Bar("fixed heads", 0.7, 0.6, 0.8), Bar("random heads", 0.2)],
        verdict="These heads look at the target.",
    )
    run = ReportRun(
        title="Localization heads of fake-model",
        model_name="fake/model",
        about=["A made-up run."],
        command="python pipeline.py stage=report",
        num_layers=LAYERS,
        num_heads=HEADS,
        num_cells=64,
        rules=RULES,
        top_k=3,
        fixed=USED,
        wanted=USED,
        dataset=dataset,
        num_samples=num_samples,
        failures=[("bad <row>", "Expected a picture & got <none>.")],
        against=OtherRun("another <run>", [OtherRow("row1", (0.0, 0.0, 40.0, 40.0), 0.1, "L0H0")]),
    )
    return replace(run, **changes)  # type: ignore[arg-type]
