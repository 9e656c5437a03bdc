"""Sweeps: each job's results by themselves, and one table of all jobs at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab.command_line.tables import format_table
from lab.config.settings import Settings


def keep_sweep_apart(settings: Settings) -> Settings:
    """In a sweep, let each job's data set analysis go to the job's own directory, unless told otherwise.

    Args:
        settings: The configuration of the job that Hydra is running.

    Returns:
        The same, with `data.analysis_dir` set where a sweep leaves it open.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_settings = HydraConfig.get()
    if hydra_settings.mode != RunMode.MULTIRUN or settings.data.analysis_dir is not None:
        return settings
    return replace(settings, data=replace(settings.data, analysis_dir=hydra_settings.runtime.output_dir))


def describe_sweep(overrides: Sequence[Sequence[str]], scores: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Give one table of a sweep's jobs: the overrides in which they differ, and their scores.

    Args:
        overrides: What the command line set for each job.
        scores: Named values of each job; None for one that failed.

    Returns:
        Lines; a job without scores shows dashes.
    """
    assigned = [dict(override.partition("=")[::2] for override in job) for job in overrides]
    keys = dict.fromkeys(key for job in assigned for key in job)
    varied = [key for key in keys if len({job.get(key) for job in assigned}) > 1]
    names = dict.fromkeys(name for job in scores for name in job or ())
    rows = [
        {
            "job": str(number),
            **{key: job.get(key, "") for key in varied},
            **{name: _format_score((found or {}).get(name)) for name in names},
            **({} if found is not None else {"": "failed"}),
        }
        for number, (job, found) in enumerate(zip(assigned, scores))
    ]
    return format_table(rows)


def _format_score(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
