"""Stage `analyze`: attention file -> ranked heads beside it."""

from __future__ import annotations

from command_line.results import StageResult
from lab.config.settings import Settings
from stages.plan import Steps
from stages.stored import run_stored


def run_analyze(settings: Settings) -> StageResult:
    """Rank the heads of one stored attention file."""
    return run_stored(settings, Steps(analysis=True))
