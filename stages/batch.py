"""Stage `batch`: rows of a file -> the results of each; finished rows are skipped, failed ones recorded.

Runs that meet: several may fill one directory as long as they have no row in common (shards of one file, or several
files). A run that has a row in common with one at work is told by process, machine and time who that is, and stops
before the model is loaded. Nobody touches what a living run has half-written; what dead ones left is cleared.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from command_line.interrupts import obey_interrupts
from command_line.progress import progress_bar
from command_line.results import StageResult
from foreign_files.messages import shorten
from lab.config.settings import DataSettings, Settings
from lab.datasets.rows import RowFailure, RowFields, RowSelection, read_rows
from lab.records import Sample
from lab.storage.background import items_in_hand
from lab.storage.claims import claim_rows
from lab.storage.kept_directory import KeptDirectory, keep_directory
from lab.storage.paths import OutputPaths
from lab.storage.pictures import PictureIndex
from lab.storage.run_state import FailureLog, WantedFiles, claim_directory, find_finished
from stages.earlier_results import remove_stale
from stages.loading import Collector, CollectorLoader
from stages.plan import Plan, Steps, make_plan
from stages.running import run_calls
from stages.sharing import plan_calls
from stages.summaries import BatchCounts, describe_batch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """What a batch works with.

    Attributes:
        plan: What to make, and how.
        rows: The chosen rows of the file.
        failures: Where failures are recorded.
        pictures: What the pictures hold.
        directory: The directory of results, watched over.
    """

    plan: Plan
    rows: RowSelection
    failures: FailureLog
    pictures: PictureIndex
    directory: KeptDirectory


def run_batch(settings: Settings, load: CollectorLoader) -> StageResult:
    """Make the results of each row of a file that has none yet.

    Args:
        settings: The whole configuration.
        load: Makes the collector; not called where nothing is left to do.

    Returns:
        How many rows are done, skipped and failed.

    Raises:
        ValueError: The directory holds results of other settings, another run is at work on some of the rows, or a
            row failed with `data.strict`.
        OSError: Results cannot be written, or the directory was removed.
    """
    data, result_dir = settings.data, settings.result_dir
    plan = make_plan(settings, _batch_steps(settings))
    box_format = data.box_format if data.visualize_batch else None  # ground truth is shown in figures only
    rows = read_rows(data.data_file or "", _fields(data), data.start_index, data.end_index, box_format=box_format)
    names = (OutputPaths.of_sample(result_dir, sample).file_stem for sample in rows.samples)
    with claim_rows(result_dir, names), keep_directory(result_dir) as kept, obey_interrupts(items_in_hand):
        failures = FailureLog(result_dir, str(data.data_file))
        counts = _run_claimed(_Batch(plan, rows, failures, PictureIndex(result_dir.parent), kept), load)
    return StageResult(tuple(describe_batch(counts, result_dir, failures.path)), counts.failed)


def _fields(data: DataSettings) -> RowFields:
    return RowFields(data.id_field, data.prompt_field, data.image_field)


def _batch_steps(settings: Settings) -> Steps:
    """Ranked heads go with attention files: a run for boxes alone needs none and, stopping early, sees only some."""
    save = settings.storage.attention.save
    return Steps(attention=save, analysis=save, box=True, figure=settings.data.visualize_batch)


def _run_claimed(batch: _Batch, load: CollectorLoader) -> BatchCounts:
    """Do what is left to do."""
    finished = _prepare_directory(batch)
    batch.pictures.save()
    _record_unreadable_rows(batch)
    pending = [sample for sample in batch.rows.samples if sample.id not in finished]
    collector = load(batch.plan.settings.model, batch.plan.stop_layer) if pending else None
    started = time.perf_counter()
    failed: set[str] = set()
    sources: Counter[str] = Counter()
    if collector is not None:
        failed, sources = _run_pending(batch, finished, collector)
        _check_results(batch, finished | failed)
    _remember_pictures(batch)
    return BatchCounts(
        done=len(pending) - len(failed),
        skipped=len(finished),
        failed=len(failed) + len(batch.rows.failures),
        seconds=time.perf_counter() - started,
        sources=dict(sources),
    )


def _prepare_directory(batch: _Batch) -> frozenset[str]:
    """Claim the directory for these settings, find the ids that are finished, and remove what is to be made anew."""
    plan, samples = batch.plan, batch.rows.samples
    directory, overwrite = plan.settings.result_dir, plan.settings.data.overwrite
    claim_directory(directory, plan.shaping, overwrite)
    finished: frozenset[str] = frozenset()
    if not overwrite:
        wanted, top_k = WantedFiles(plan.steps.attention, plan.figure_formats), plan.settings.logic.top_k
        finished = find_finished(directory, samples, plan.fingerprint, wanted, top_k, batch.pictures)
    pending = [sample for sample in samples if sample.id not in finished]
    remove_stale(plan, [(sample, OutputPaths.of_sample(directory, sample)) for sample in pending])
    return finished


def _record_unreadable_rows(batch: _Batch) -> None:
    """Record the rows that cannot be run at all, and say so once."""
    rows, failures = batch.rows, batch.failures
    failures.forget([*(sample.line_number for sample in rows.samples), *(row.line_number for row in rows.failures)])
    if not rows.failures:
        return
    first = rows.failures[0]
    if batch.plan.settings.data.strict:
        _record_failure(first, failures, strict=True)
    failures.add_all(rows.failures)
    more = f", and {len(rows.failures) - 1} more rows" if len(rows.failures) > 1 else ""
    logger.warning("No result for %s%s: %s (see %s)", _where(first), more, first.reason, failures.path)


def _run_pending(batch: _Batch, finished: frozenset[str], collector: Collector) -> tuple[set[str], Counter[str]]:
    """Run what is not finished under a progress bar; give the ids that failed, and where the others' heads came from.

    Rows share a forward as in a run of the whole file that was never stopped; those that are finished or not chosen
    are read for company, and not written.
    """
    failed: set[str] = set()
    sources: Counter[str] = Counter()
    settings = batch.plan.settings
    pending = frozenset(sample.id for sample in batch.rows.samples) - finished
    calls = plan_calls(_all_rows(batch), pending, settings.model.batch_size)
    run = closing(run_calls(calls, pending, batch.plan, collector))
    with run as results, progress_bar(results, total=len(pending), unit="row", label="batch") as bar:
        for result in bar:
            batch.directory.check()
            if isinstance(result, RowFailure):
                failed.add(str(result.id))
                _record_failure(result, batch.failures, settings.data.strict)
            elif result.choice is not None:
                sources[result.choice.source] += 1
    return failed, sources


def _all_rows(batch: _Batch) -> Sequence[Sample]:
    """All rows of the file, chosen or not, since they share forward passes with the chosen ones."""
    data = batch.plan.settings.data
    if data.start_index is None and data.end_index is None:
        return batch.rows.samples
    return read_rows(data.data_file or "", _fields(data)).samples


def _check_results(batch: _Batch, others: frozenset[str]) -> None:
    """Make sure that no result of this run was removed meanwhile; the ids of others are left out."""
    directory = batch.plan.settings.result_dir
    made = (sample for sample in batch.rows.samples if sample.id not in others)
    batch.directory.check_files(OutputPaths.of_sample(directory, sample).bbox_json.name for sample in made)


def _remember_pictures(batch: _Batch) -> None:
    """Keep for the next run what the pictures hold."""
    for image_file in {sample.image_file for sample in batch.rows.samples}:
        batch.pictures.find(image_file)
    batch.pictures.save()


def _record_failure(failure: RowFailure, failures: FailureLog, strict: bool) -> None:
    failures.add(failure)
    where = _where(failure)
    if strict:
        raise ValueError(f"Stopped at the first row that failed, as data.strict=true asks ({where}): {failure.reason}")
    logger.warning("No result for %s: %s", where, failure.reason)


def _where(failure: RowFailure) -> str:
    return f"line {failure.line_number}" + ("" if failure.id is None else f", id {shorten(failure.id)}")
