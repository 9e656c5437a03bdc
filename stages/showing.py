"""The results of one sample, shown to people."""

from __future__ import annotations

from command_line.results import StageResult
from stages.sample import ItemResult
from stages.summaries import describe_box, describe_choice, describe_files, describe_ranking, describe_sample


def show_and_describe(result: ItemResult) -> StageResult:
    """Summarize the results of one sample, and open the figure in a window if it was kept for that.

    Args:
        result: What was made of the sample.

    Returns:
        The summary.
    """
    lines = describe_sample(result.collected)
    if result.choice is None:
        lines += describe_ranking(result.ranked)
    else:
        lines += describe_choice(result.choice)
    if result.localization is not None:
        lines.append(describe_box(result.localization))
    if result.figure is not None:
        from viz import show

        show(result.figure)
    return StageResult((*lines, *describe_files(result.written)))
