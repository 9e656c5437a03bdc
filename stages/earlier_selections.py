"""What an earlier `batch_analyze` left in a directory: kept from being overwritten, or removed before it goes stale."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.config.settings import Settings
from lab.storage import files
from stages.plan import find_in_project

RECORD = "batch_selected_heads.json"
_TABLES = (RECORD, "batch_selected_heads_counts.csv", "heads.yaml", "labelled_heads.yaml")
_FIGURES = ("batch_elbow", "batch_mean_sum_map", "batch_frequency_map", "batch_top_heads", "batch_frequency_by_samples")


def refuse_to_overwrite_selection(directory: Path, settings: Settings) -> None:
    """Keep the heads that were found with other settings, or that are in use, from being overwritten.

    Args:
        directory: Where the heads will be written.
        settings: The whole configuration.

    Raises:
        ValueError: There are heads of other settings (`data.overwrite` allows them to be overwritten), or the heads
            file that is in use.
    """
    heads_file = settings.logic.heads_file
    outputs = {path.resolve() for path in _outputs(directory)}
    if heads_file is not None and Path(find_in_project(heads_file)).resolve() in outputs:
        raise ValueError(
            f"Expected the heads of {heads_file} to stay while they are scored, but this run writes its own into "
            f"{directory}. Choose another data.analysis_dir."
        )
    if settings.data.overwrite:
        return
    before, here = _recorded_settings(directory / RECORD), files.to_plain(dataclasses.asdict(settings.logic))
    differing = [key for key in here if before is not None and before.get(key) != here[key]]
    if before is not None and differing:
        key = differing[0]
        raise ValueError(
            f"Expected {directory} to hold heads that were found with the same settings, but got others: logic.{key} "
            f"was {before.get(key)!r} and is {here[key]!r}. Choose another data.analysis_dir, or redo them with "
            "data.overwrite=true."
        )


def _recorded_settings(path: Path) -> dict[str, Any] | None:
    """What the heads that are there were found with; None where there are none, or older ones that do not say."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"regions": "merged", **record["settings"]}  # which older ones do not say
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def remove_earlier_selection(directory: Path) -> None:
    """Remove all that an earlier run wrote, so that nothing of it stays beside what this one writes.

    Args:
        directory: Where the heads will be written.
    """
    for path in _outputs(directory):
        path.unlink(missing_ok=True)


def _outputs(directory: Path) -> Iterator[Path]:
    """Every file that `batch_analyze` may write."""
    yield from (directory / name for name in _TABLES)
    yield from (directory / f"{name}.{ending}" for name in _FIGURES for ending in ("png", "pdf", "svg"))
    yield from directory.glob("head_audit.*")
