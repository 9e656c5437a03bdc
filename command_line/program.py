"""The command line as a program: runs a stage for each job, says errors in one line, ends with an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from command_line.hydra_run import is_config_error, run_hydra
from command_line.interrupts import EXIT_INTERRUPTED, obey_interrupts
from command_line.repeats import count_repeated_warnings
from command_line.results import StageResult
from command_line.streams import explain_lost_output, forgiving_streams, say
from command_line.sweeps import (
    TABLE_FILE,
    describe_sweep,
    keep_sweep_apart,
    sweep_directory,
    swept_keys,
    write_sweep,
)
from foreign_files.messages import shorten_reason
from lab.config.errors import ConfigError
from lab.config.schema import explain, validate
from lab.config.settings import Settings
from lab.storage.background import items_in_hand

logger = logging.getLogger(__name__)

LONGEST_ERROR = 1000
"""Characters of an error, which may quote what a file holds."""
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

RunStage = Callable[[Settings], StageResult]


@dataclass(frozen=True)
class Job:
    """One run of a stage: the only one, or one of a sweep.

    Attributes:
        overrides: What the command line set for it.
        exit_status: 0, or what went wrong.
        result: What the stage found, if it came to an end.
        table_dir: Where the table of the sweep goes, if this is one.
    """

    overrides: tuple[str, ...]
    exit_status: int
    result: Optional[StageResult] = None
    table_dir: Optional[Path] = None


def run_program(run_stage: RunStage, arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    The exit status speaks of results: a summary that could not be printed changes nothing in it.

    Args:
        run_stage: Runs the stage that the settings name.
        arguments: Without the program's name; None for those of the process.

    Returns:
        Exit status: 0, 1 where a stage or a row failed, 2 where the configuration is wrong, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with forgiving_streams() as (stdout, _), obey_interrupts(items_in_hand, leave=True):
        status = _run_jobs(run_stage, arguments)
        lost = explain_lost_output(stdout)
        if lost:
            print(lost, file=sys.stderr)
    return status


def _run_jobs(run_stage: RunStage, arguments: Sequence[str]) -> int:
    full_error = bool(os.environ.get("HYDRA_FULL_ERROR"))
    swept = swept_keys(arguments)
    jobs: list[Job] = []
    try:
        run_hydra(lambda cfg: jobs.append(_run_job(run_stage, cfg, swept, full_error)), arguments)
    except KeyboardInterrupt as interrupt:
        print(*interrupt.args or ("Stopped.",), file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if full_error or not is_config_error(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        return EXIT_USAGE
    if len(jobs) > 1:
        say(["", *_summarize_sweep(jobs)])
    return max((job.exit_status for job in jobs), default=EXIT_OK)


def _summarize_sweep(jobs: Sequence[Job]) -> list[str]:
    """The table of all jobs, for people; it is written as CSV, too."""
    overrides = [job.overrides for job in jobs]
    scores = [None if job.result is None else job.result.scores for job in jobs]
    lines = describe_sweep(overrides, scores)
    directories = {job.table_dir for job in jobs if job.table_dir is not None}
    for directory in sorted(directories):
        write_sweep(directory / TABLE_FILE, overrides, scores)
        lines.append(f"table   {directory / TABLE_FILE}")
    return lines


def _run_job(run_stage: RunStage, cfg: Any, swept: Sequence[str], full_error: bool) -> Job:
    """Run one job, and say in one line what went wrong, if anything did."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    listed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # with `${...}` as typed
    overrides = tuple(listed)
    try:
        settings = validate(cfg)
        table_dir = sweep_directory(settings)
        with count_repeated_warnings(), _goes_on_if_a_batch(settings):
            result = run_stage(keep_sweep_apart(settings, swept))
    except (ValueError, OSError, ImportError) as error:
        if full_error:
            raise
        logger.debug("The stage failed.", exc_info=True)
        print(f"error: {shorten_reason(error, LONGEST_ERROR)}", file=sys.stderr)
        return Job(overrides, EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED)
    say(result.lines)
    return Job(overrides, EXIT_FAILED if result.failed else EXIT_OK, result, table_dir)


@contextmanager
def _goes_on_if_a_batch(settings: Settings) -> Iterator[None]:
    """Let an interrupt say that the same command goes on, where it does: only a batch keeps what it has."""
    try:
        yield
    except KeyboardInterrupt:
        if settings.stage == "batch" and not settings.data.overwrite:
            raise KeyboardInterrupt("Stopped. The same command goes on where it was.") from None
        raise
