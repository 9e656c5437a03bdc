"""Size of the report, time until it is open, and time of a slider's move, in a real browser.

`python -m benchmarks.report_page` needs Chromium.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from examples.browser import Browser
from lab.records import CollectedAttention, Grid, Sample
from report.page import build
from report.records import BoxRules, DatasetPart, ReportRun, ReportSample

LAYERS, HEADS, SIDE = 32, 32, 24
SIZE_WH = (640, 480)
GRID = Grid(SIDE, SIDE, 0.0, -80.0, 640 / SIDE, 640 / SIDE)
USED = ((14, 24), (14, 13), (14, 26))
SLIDER_STEPS = 40
MOVE_A_SLIDER = """
(() => {
  const field = document.getElementById("sigma");
  const times = [];
  for (let i = 0; i < %d; i += 1) {
    const start = performance.now();
    field.value = String((i %% 30) / 10);
    field.dispatchEvent(new Event("input", { bubbles: true }));
    document.getElementById("stage").getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
})()
"""
"""Each time holds the arithmetic, the drawing into the document, and its layout."""
OPENED = "(() => { const [n] = performance.getEntriesByType('navigation'); return n.loadEventEnd - n.startTime; })()"


def made_up_samples(directory: Path, count: int) -> Iterator[ReportSample]:
    """Photograph-like noise with attention as wide as that of LLaVA-1.5-7B, `[32, 32, 576]`."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = directory / f"{number}.jpg"
        _picture(rng, path)
        attention = rng.gamma(0.4, 1.0, (LAYERS, HEADS, SIDE * SIDE)).astype(np.float32)
        attention *= rng.uniform(0.05, 0.6, (LAYERS, HEADS, 1)) / attention.sum(axis=2, keepdims=True)
        scores = {name: rng.random((LAYERS, HEADS)) for name in ("sum", "entropy", "iou", "enrichment")}
        sample = Sample(f"sample_{number:03}", str(path), f"the made-up thing number {number}")
        yield ReportSample(
            CollectedAttention(attention, GRID, SIZE_WH, sample, {}),
            file=f"outputs/results/made-up/{number}.pkl.gz",
            heads=USED,
            source="fixed",
            ranked=(*USED, *((layer, 3) for layer in range(5, 10))),
            filtered=np.zeros((LAYERS, HEADS), dtype=int),
            scores=scores,
            box_xyxy=(100.0, 100.0, 300.0, 300.0),
            truth_xyxy=(120.0, 90.0, 310.0, 280.0),
            last_token=str(number),
        )


def _picture(rng: np.random.Generator, path: Path) -> None:
    """Coarse and fine noise: as hard to compress as a busy photograph."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize(SIZE_WH)
    fine = rng.normal(0, 18, (SIZE_WH[1], SIZE_WH[0], 3))
    Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)).save(path, quality=92)


def made_up_run(count: int) -> ReportRun:
    """What the pictures share."""
    rng = np.random.default_rng(1)
    sums = rng.random((LAYERS, HEADS))
    return ReportRun(
        title="Localization heads of made-up attention",
        model_name="made-up",
        about=[f"{count} pictures of [{LAYERS}, {HEADS}, 1, {SIDE * SIDE}]."],
        command="python -m benchmarks.report_page",
        num_layers=LAYERS,
        num_heads=HEADS,
        num_cells=SIDE * SIDE,
        rules=BoxRules(1.0, 4.0, 1.0, "largest"),
        top_k=3,
        fixed=USED,
        wanted=USED,
        dataset=DatasetPart(count, "Made up.", mean_sums=sums, threshold=0.5, frequency=sums / 2),
        num_samples=count,
    )


def measure(path: Path, directory: Path) -> tuple[float, list[float]]:
    """Open a page and move a slider of its explorer.

    Args:
        path: The page.
        directory: Where the browser keeps its profile.

    Returns:
        Seconds until the page was loaded, and milliseconds of each move of the slider.
    """
    browser = Browser(directory / "profile")
    try:
        browser.resize(1400, 900)
        browser.open(path.as_uri())
        opened = float(browser.run(OPENED)) / 1000
        browser.run("document.querySelector('.card .open').click()")
        return opened, [float(value) for value in browser.run(MOVE_A_SLIDER % SLIDER_STEPS)]
    finally:
        browser.close()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Make the page, measure it, and write the figures to the standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="where to keep the page")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = (options.keep or directory / "report.html").resolve()
        start = time.perf_counter()
        page = build(made_up_run(options.pictures), made_up_samples(directory, options.pictures)).encode("utf-8")
        made = time.perf_counter() - start
        path.write_bytes(page)
        opened, moves = measure(path, directory)
    lines = [
        f"page    {len(page) / 1e6:.2f} MB, {options.pictures} pictures, made in {made:.1f} s",
        f"opens   in {opened:.2f} s",
        f"slider  {statistics.median(moves):.1f} ms, at most {max(moves):.1f} ms over {len(moves)} moves",
    ]
    parser.exit(0, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
