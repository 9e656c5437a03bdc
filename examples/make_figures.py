"""Draw the README's figures again, from the results of its commands: ``python -m examples.make_figures``."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from examples.make_gallery import make_gallery

FIGURES = Path("examples/figures")
DATASET = Path("outputs/picturebook-data/test.jsonl")
RESULTS = Path("outputs/test/picturebook-llava")
COPIED = {
    "bird_top3.png": Path("outputs/fixed/picturebook-llava/bird_2_top3.png"),
    "head_audit.png": Path("outputs/test-audit/head_audit.png"),
}


def main() -> None:
    """Copy what the commands drew, and draw the gallery: from the best row of the test split to the worst."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, source in COPIED.items():
        shutil.copyfile(source, FIGURES / name)
    make_gallery(DATASET, RESULTS, FIGURES / "gallery.png", select="spread")
    logging.getLogger(__name__).info("Wrote %s", ", ".join(str(path) for path in sorted(FIGURES.iterdir())))


if __name__ == "__main__":
    main()
