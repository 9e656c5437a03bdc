"""Screenshots of a report's views: `python -m examples.make_report_screenshots outputs/results/<model>/report.html`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from examples.browser import Browser

FIGURES = Path(__file__).resolve().parent / "figures"
SIZE_WH = (1280, 860)
VIEWS = {"gallery": "view=gallery", "explorer": "id={id}", "dataset": "view=dataset"}

MIDDLE = "(() => { const c = document.querySelectorAll('#cards .card'); return c[c.length >> 1].dataset.id; })()"


def take(report: Path, directory: Path, sample_id: Optional[str]) -> list[Path]:
    """Write one PNG for each view.

    Args:
        report: The report.
        directory: Where the pictures go.
        sample_id: The sample that the explorer shows; None for the middle one.

    Returns:
        Paths of the pictures.

    Raises:
        ValueError: There is no Chromium.
    """
    paths = []
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            browser.resize(*SIZE_WH)
            browser.open(report.resolve().as_uri())
            shown = sample_id or browser.run(MIDDLE)
            for view, place in VIEWS.items():
                browser.open(f"{report.resolve().as_uri()}#{place.format(id=shown)}")
                paths.append(directory / f"report_{view}.png")
                browser.screenshot(paths[-1])
        finally:
            browser.close()
    return paths


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--output", type=Path, default=FIGURES)
    parser.add_argument("--id", help="the sample that the explorer shows")
    options = parser.parse_args(arguments)
    paths = take(options.report, options.output, options.id)
    parser.exit(0, "".join(f"{path}\n" for path in paths))


if __name__ == "__main__":
    main()
