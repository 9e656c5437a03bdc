"""Stage `batch`: JSONL file -> the results of each row; finished rows are skipped, failed ones recorded."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from pathlib import Path

from lab.command_line.results import StageResult
from lab.config.settings import Settings
from lab.datasets.rows import RowFailure, RowFields, RowSelection, read_rows
from lab.records import Sample
from lab.storage import files
from lab.storage.paths import OutputPaths
from lab.storage.run_state import RUN_FILE, FailureLog, WantedFiles, claim_directory, find_finished
from stages.earlier_results import remove_stale
from stages.loading import Collector, CollectorLoader
from stages.plan import Plan, Steps, make_plan
from stages.running import run_calls
from stages.sharing import plan_calls
from stages.summaries import BatchCounts, describe_batch

logger = logging.getLogger(__name__)


def run_batch(settings: Settings, load: CollectorLoader) -> StageResult:
    """Make the results of each row of a JSONL file that has none yet.

    Args:
        settings: The whole configuration.
        load: Makes the collector; not called where nothing is left to do.

    Returns:
        How many rows are done, skipped and failed.

    Raises:
        ValueError: The directory holds results of other settings, or a row failed with `data.strict`.
        OSError: Results cannot be written.
    """
    data = settings.data
    plan = make_plan(settings, _batch_steps(settings))
    fields = RowFields(data.id_field, data.prompt_field, data.image_field)
    rows = read_rows(data.data_file or "", fields, data.start_index, data.end_index)
    finished = _prepare_directory(plan, rows.samples)
    pending = frozenset(sample.id for sample in rows.samples) - finished
    failures = FailureLog(settings.result_dir, str(data.data_file))
    failures.forget([sample.line_number for sample in rows.samples])
    failures.forget([failure.line_number for failure in rows.failures])
    for failure in rows.failures:
        _record_failure(failure, failures, data.strict)
    collector = load(settings.model, plan.stop_layer) if pending else None
    started = time.perf_counter()
    calls = plan_calls(_all_rows(rows, settings, fields), pending, settings.model.batch_size)
    failed, sources = _run_pending(calls, pending, plan, collector, failures) if collector else (0, Counter())
    _check_all_there(settings.result_dir, rows.samples, len(rows.samples) - failed)
    counts = BatchCounts(
        done=len(pending) - failed,
        skipped=len(finished),
        failed=failed + len(rows.failures),
        seconds=time.perf_counter() - started,
        sources=dict(sources),
    )
    return StageResult(tuple(describe_batch(counts, settings.result_dir, failures.path)), counts.failed)


def _batch_steps(settings: Settings) -> Steps:
    """Ranked heads go with attention files: a run for boxes alone needs none and, stopping early, sees only some."""
    save = settings.storage.attention.save
    return Steps(attention=save, analysis=save, box=True, figure=settings.data.visualize_batch)


def _prepare_directory(plan: Plan, samples: Sequence[Sample]) -> frozenset[str]:
    """Claim the directory for these settings, clear what a killed run left, and find the ids that are finished."""
    settings = plan.settings
    directory, top_k, overwrite = settings.result_dir, settings.logic.top_k, settings.data.overwrite
    claim_directory(directory, plan.shaping, overwrite)
    finished: frozenset[str] = frozenset()
    if not overwrite:
        wanted = WantedFiles(plan.steps.attention, plan.steps.figure)
        finished = find_finished(directory, samples, plan.fingerprint, wanted, top_k)
    pending = [(sample, OutputPaths(directory, sample.id, top_k)) for sample in samples if sample.id not in finished]
    remove_stale(plan, pending)
    files.remove_partial_files(directory, (path for _, paths in pending for path in paths.all_paths()))
    return finished


def _all_rows(rows: RowSelection, settings: Settings, fields: RowFields) -> Sequence[Sample]:
    """All rows of the file, chosen or not, since they share forward passes with the chosen ones."""
    is_part = settings.data.start_index is not None or settings.data.end_index is not None
    return read_rows(settings.data.data_file or "", fields).samples if is_part else rows.samples


def _run_pending(
    calls: Sequence[Sequence[Sample]], pending: Set[str], plan: Plan, collector: Collector, failures: FailureLog
) -> tuple[int, Counter[str]]:
    """Run the samples under a progress bar; count the failures, and where the others' heads came from."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    failed, sources = 0, Counter[str]()
    directory = plan.settings.result_dir
    run = closing(run_calls(calls, pending, plan, collector))
    with _explaining_loss(directory), run as results, logging_redirect_tqdm():
        for result in tqdm(results, total=len(pending), unit="row", desc="batch", smoothing=0.05):
            _check_directory(directory)
            if isinstance(result, RowFailure):
                failed += 1
                _record_failure(result, failures, plan.settings.data.strict)
            elif result.choice is not None:
                sources[result.choice.source] += 1
    return failed, sources


@contextmanager
def _explaining_loss(directory: Path) -> Iterator[None]:
    """Say that the directory was removed, where a file could not be written for that reason."""
    try:
        yield
    except OSError:
        _check_directory(directory)
        raise


def _check_directory(directory: Path) -> None:
    """Stop where the directory of results was removed under the run; what follows would hide what is lost."""
    if not (directory / RUN_FILE).is_file():
        raise FileNotFoundError(
            f"Expected {directory} to be there until the batch is done, but it was removed on the way, with the "
            "results in it. Run the same command again."
        )


def _check_all_there(directory: Path, samples: Sequence[Sample], expected: int) -> None:
    """Make sure that every row that counts as done has its box, whatever others did to the directory."""
    present = {entry.name for entry in os.scandir(directory)} if directory.is_dir() else set()
    found = sum(OutputPaths(directory, sample.id).bbox_json.name in present for sample in samples)
    if found < expected:
        raise FileNotFoundError(
            f"Expected {directory} to hold the boxes of {expected} rows, but got {found}: some were removed while the "
            "batch ran. Run the same command again."
        )


def _record_failure(failure: RowFailure, failures: FailureLog, strict: bool) -> None:
    failures.add(failure)
    where = f"line {failure.line_number}" + ("" if failure.id is None else f", id {failure.id!r}")
    if strict:
        raise ValueError(f"Stopped at the first row that failed, as data.strict=true asks ({where}): {failure.reason}")
    logger.warning("No result for %s: %s", where, failure.reason)
