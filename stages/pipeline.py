"""Stage `pipeline`: one image, one query -> attention file, ranked heads, figure, mask and box."""

from __future__ import annotations

from command_line.results import StageResult
from lab.config.settings import Settings
from stages.loading import CollectorLoader
from stages.plan import Steps
from stages.single import run_single


def run_pipeline(settings: Settings, load: CollectorLoader) -> StageResult:
    """Run the model on one image and one query, and make everything of it."""
    save = settings.storage.attention.save
    steps = Steps(attention=save, analysis=True, box=True, figure=settings.save_fig, show=settings.show_plot)
    return run_single(settings, load, steps)
