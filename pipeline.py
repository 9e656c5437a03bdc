"""The command line: a table of stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Callable, Optional

from command_line.program import run_program
from command_line.results import StageResult
from lab.config.settings import Settings
from stages.loading import CollectorLoader, load_collector


def collect(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file."""
    from stages.collect import run_collect

    return run_collect(settings, load)


def analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> ranked heads beside it."""
    from stages.analyze import run_analyze

    return run_analyze(settings)


def visualize(settings: Settings, load: CollectorLoader) -> StageResult:
    """Attention file -> figure, mask and box beside it."""
    from stages.visualize import run_visualize

    return run_visualize(settings)


def pipeline(settings: Settings, load: CollectorLoader) -> StageResult:
    """One image, one query -> attention file, ranked heads, figure, mask and box."""
    from stages.pipeline import run_pipeline

    return run_pipeline(settings, load)


def batch(settings: Settings, load: CollectorLoader) -> StageResult:
    """JSONL file -> the results of each row; finished rows are skipped, failed ones recorded."""
    from stages.batch import run_batch
    from stages.report import with_report

    return with_report(run_batch(settings, load), settings)


def batch_analyze(settings: Settings, load: CollectorLoader) -> StageResult:
    """Directories of attention files -> the heads that the data set chooses, checked against boxes if there are any."""
    from stages.batch_analyze import run_batch_analyze
    from stages.report import with_report

    return with_report(run_batch_analyze(settings), settings)


def report(settings: Settings, load: CollectorLoader) -> StageResult:
    """Directory of results -> one HTML file to look at it."""
    from stages.report import run_report

    return run_report(settings)


def check_model(settings: Settings, load: CollectorLoader) -> StageResult:
    """A model and one or two pictures -> whether its rows, sharing, grid and prompt can be trusted."""
    from stages.check_model import run_check_model

    return run_check_model(settings)


# What a stage needs is imported when it is run: the help page starts at once.
STAGES: dict[str, Callable[[Settings, CollectorLoader], StageResult]] = {
    "collect": collect,
    "analyze": analyze,
    "visualize": visualize,
    "pipeline": pipeline,
    "batch": batch,
    "batch_analyze": batch_analyze,
    "report": report,
    "check_model": check_model,
}


def run(settings: Settings, load: CollectorLoader = load_collector) -> StageResult:
    """Run the stage that the settings name.

    Args:
        settings: The whole configuration.
        load: Makes the collector; only stages that run the model call it.

    Returns:
        What the stage found.
    """
    from stages.leftovers import clear_leftovers

    clear_leftovers(settings)
    return STAGES[settings.stage](settings, load)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        Exit status: 0, 1 where a stage or a row failed, 2 where the configuration is wrong.
    """
    return run_program(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
