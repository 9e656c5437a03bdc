"""Stage `visualize`: attention file -> figure, mask and box beside it."""

from __future__ import annotations

from command_line.results import StageResult
from lab.config.settings import Settings
from stages.plan import Steps
from stages.stored import run_stored


def run_visualize(settings: Settings) -> StageResult:
    """Make figure, mask and box of one stored attention file."""
    return run_stored(settings, Steps(box=True, figure=settings.save_fig, show=settings.show_plot))
