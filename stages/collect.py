"""Stage `collect`: one image, one query -> attention file."""

from __future__ import annotations

from command_line.results import StageResult
from lab.config.settings import Settings
from stages.loading import CollectorLoader
from stages.plan import Steps
from stages.single import run_single


def run_collect(settings: Settings, load: CollectorLoader) -> StageResult:
    """Run the model on one image and one query, and store the attention."""
    return run_single(settings, load, Steps(attention=True))
