"""Sweeps: each job's results by themselves, and one table of all jobs at the end."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from command_line.tables import format_table
from lab.config.settings import Settings
from lab.storage.files import atomic_write

TABLE_FILE = "sweep.csv"
_MAX_NAME_LENGTH = 160


def sweep_directory(settings: Settings) -> Optional[Path]:
    """Find where the table of the sweep goes: below `data.analysis_dir`, or into Hydra's directory of the sweep.

    Args:
        settings: The configuration of the job that Hydra is running.

    Returns:
        The directory; None where there is no sweep.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_settings = HydraConfig.get()
    if hydra_settings.mode != RunMode.MULTIRUN:
        return None
    return Path(settings.data.analysis_dir or hydra_settings.sweep.dir)


def keep_sweep_apart(settings: Settings, swept: Sequence[str]) -> Settings:
    """In a sweep, let each job's data set analysis go to a directory of its own.

    Args:
        settings: The configuration of the job that Hydra is running.
        swept: Keys that the sweep gives several values.

    Returns:
        The same, with `data.analysis_dir` the job's own directory: below the one that was given, named by the job's
        values of the swept keys, or else Hydra's directory of the job.
    """
    from hydra.core.hydra_config import HydraConfig

    if sweep_directory(settings) is None:
        return settings
    given = settings.data.analysis_dir
    own = HydraConfig.get().runtime.output_dir
    if given is not None:
        own = str(Path(given, job_name(HydraConfig.get().overrides.task, swept)))
    return replace(settings, data=replace(settings.data, analysis_dir=own))


def job_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """Name a job's directory by what sets it apart, such as `logic.top_k=1,logic.smoothing.sigma=0`.

    Args:
        overrides: What the job's command line sets.
        swept: Keys that the sweep gives several values.

    Returns:
        A file name; different values give different names.
    """
    apart = [override for override in overrides if override.partition("=")[0] in set(swept)]
    name = quote(",".join(apart or overrides), safe="=,+", errors="surrogatepass").replace("~", "%7E")
    if len(name) > _MAX_NAME_LENGTH:
        name = f"{name[: _MAX_NAME_LENGTH - 21]}~{hashlib.sha256(name.encode()).hexdigest()[:20]}"
    return name or "job"


def swept_keys(arguments: Sequence[str]) -> tuple[str, ...]:
    """Find the keys that the command line gives several values, such as `logic.top_k=1,3`.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The keys, in order.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    keys = []
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
        except Exception:  # a flag, or what the grammar chokes on: Hydra refuses it in its turn, in one line
            continue
        if override.is_sweep_override():
            keys.append(override.get_key_element().lstrip("+"))
    return tuple(keys)


def describe_sweep(overrides: Sequence[Sequence[str]], scores: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Give one table of a sweep's jobs: the overrides in which they differ, and their scores.

    Args:
        overrides: What the command line set for each job.
        scores: Named values of each job; None for one that failed.

    Returns:
        Lines; a job without scores shows dashes.
    """
    return format_table(
        [
            {
                **{name: _format_score(value) for name, value in row.items() if name != "status"},
                **({"": "failed"} if row["status"] == "failed" else {}),
            }
            for row in sweep_rows(overrides, scores)
        ]
    )


def write_sweep(path: Path, overrides: Sequence[Sequence[str]], scores: Sequence[Mapping[str, Any] | None]) -> None:
    """Write the same table as CSV, its numbers in full.

    Args:
        path: Where to write.
        overrides: What the command line set for each job.
        scores: Named values of each job; None for one that failed.
    """
    rows = sweep_rows(overrides, scores)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode("utf-8", "backslashreplace"))


def sweep_rows(overrides: Sequence[Sequence[str]], scores: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """One row for each job: its number, the overrides in which jobs differ, scores, and whether it is done.

    Args:
        overrides: What the command line set for each job.
        scores: Named values of each job; None for one that failed.

    Returns:
        Rows with the same keys; a score that a job lacks is None.
    """
    assigned = [dict(override.partition("=")[::2] for override in job) for job in overrides]
    keys = dict.fromkeys(key for job in assigned for key in job)
    varied = [key for key in keys if len({job.get(key) for job in assigned}) > 1]
    names = dict.fromkeys(name for job in scores for name in job or ())
    return [
        {
            "job": number,
            **{key: job.get(key, "") for key in varied},
            **{name: (found or {}).get(name) for name in names},
            "status": "failed" if found is None else "done",
        }
        for number, (job, found) in enumerate(zip(assigned, scores))
    ]


def _format_score(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
