"""Samples -> results: the model runs in this thread, what follows in background threads."""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Generator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Union

from lab.datasets.rows import RowFailure
from lab.records import CollectedAttention, Sample
from lab.storage.background import map_in_background
from lab.storage.paths import OutputPaths
from lab.storage.pictures import read_picture
from stages.guard import LostRow, collect_guarded, describe_exception
from stages.loading import Collector
from stages.plan import Plan
from stages.sample import ItemResult, finish_sample

if TYPE_CHECKING:
    from collector import Collected

logger = logging.getLogger(__name__)

Outcome = Union[ItemResult, RowFailure]

# A row cannot help these, and every row that follows meets them too.
_END_OF_RUN = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "ENODEV", "ENOTCONN", "ESTALE")
    if hasattr(errno, name)
)


def run_samples(samples: Sequence[Sample], plan: Plan, collector: Collector) -> Generator[Outcome, None, None]:
    """Collect attention in this thread and finish it in background threads; see `run_calls`.

    Args:
        samples: What to ask of which image.
        plan: What to make, and how.
        collector: Runs the model.

    Yields:
        The results or the failure of each sample, in order.

    Raises:
        OSError: Results cannot be written; samples that were begun are finished first.
    """
    yield from run_calls([samples], frozenset(sample.id for sample in samples), plan, collector)


def run_calls(
    calls: Sequence[Sequence[Sample]], pending: Set[str], plan: Plan, collector: Collector
) -> Generator[Outcome, None, None]:
    """Collect attention call by call, and finish the samples that are still to be done; the others only keep company.

    Whatever goes wrong with a sample costs that sample. Only a disk that is full or gone ends the run.

    Args:
        calls: The samples of each call of the collector, see `stages.sharing.plan_calls`.
        pending: Ids of the samples to finish.
        plan: What to make, and how.
        collector: Runs the model.

    Yields:
        The results or the failure of each pending sample, in order.

    Raises:
        OSError: Results cannot be written; samples that were begun are finished first.
    """
    if plan.refiner is not None:
        plan.refiner.ready()

    def finish(collected: Union[Collected, LostRow]) -> Outcome:
        return _finish_or_fail(collected, plan)

    collected = chain.from_iterable(collect_guarded(collector, samples) for samples in calls)
    wanted = (item for item in collected if item.sample.id in pending)
    yield from map_in_background(finish, wanted, workers=plan.settings.storage.workers)


def _finish_or_fail(collected: Union[Collected, LostRow], plan: Plan) -> Outcome:
    """Make all results of what the collector gave for one sample; its failure must not stop the others."""
    sample, directory = collected.sample, plan.settings.result_dir
    if not isinstance(collected, CollectedAttention):
        return RowFailure(sample.line_number, sample.id, collected.reason)
    try:
        paths = OutputPaths.of_sample(directory, sample, plan.settings.logic.top_k)
        return finish_sample(_with_picture(collected), plan, paths)
    except Exception as error:
        if isinstance(error, OSError) and _ends_the_run(error, directory):
            raise
        logger.debug("Sample %r could not be finished.", sample.id, exc_info=error)
        return RowFailure(sample.line_number, sample.id, describe_exception(error))


def _ends_the_run(error: OSError, directory: Path) -> bool:
    return error.errno in _END_OF_RUN or not directory.is_dir()


def _with_picture(collected: CollectedAttention) -> CollectedAttention:
    """Record what the picture holds, so that a later run sees whether it is still the same."""
    try:
        picture = read_picture(collected.sample.image_file)
    except FileNotFoundError:
        return collected
    return dataclasses.replace(collected, meta={**collected.meta, **picture.record})
