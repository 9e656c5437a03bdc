"""What killed runs left half-written where a stage is going to write."""

from __future__ import annotations

from pathlib import Path

from lab.config.settings import Settings
from lab.storage.partial_files import remove_dead_partial_files


def clear_leftovers(settings: Settings) -> int:
    """Remove the temporary files of dead runs from the directories that a stage writes to.

    Args:
        settings: The whole configuration.

    Returns:
        Number of files removed.
    """
    return sum(remove_dead_partial_files(directory) for directory in _directories(settings))


def _directories(settings: Settings) -> list[Path]:
    data, results = settings.data, settings.result_dir
    if settings.stage in {"analyze", "visualize"}:
        return [Path(data.attention_file or "").parent]
    if settings.stage == "batch_analyze":
        return [Path(data.analysis_dir or (data.attention_dirs or (str(results),))[0])]
    return [results, results.parent]
