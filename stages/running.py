"""Samples -> results: the model runs in this thread, what follows in background threads."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence, Set
from itertools import chain
from typing import TYPE_CHECKING, Union

from lab.datasets.rows import RowFailure
from lab.records import CollectedAttention, Sample
from lab.storage.background import map_in_background
from lab.storage.paths import OutputPaths
from stages.loading import Collector
from stages.plan import Plan
from stages.sample import ItemResult, finish_sample

if TYPE_CHECKING:
    from collector import Collected

logger = logging.getLogger(__name__)

Outcome = Union[ItemResult, RowFailure]


def run_samples(samples: Sequence[Sample], plan: Plan, collector: Collector) -> Generator[Outcome, None, None]:
    """Collect attention in this thread and finish it in background threads.

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

    def finish(collected: Collected) -> Outcome:
        return _finish_or_fail(collected, plan)

    collected = chain.from_iterable(collector.collect(samples) for samples in calls)
    wanted = (item for item in collected if item.sample.id in pending)
    yield from map_in_background(finish, wanted, workers=plan.settings.storage.workers)


def _finish_or_fail(collected: Collected, plan: Plan) -> Outcome:
    """Make all results of what the collector gave for one sample; its failure must not stop the others."""
    sample = collected.sample
    if not isinstance(collected, CollectedAttention):
        return RowFailure(sample.line_number, sample.id, collected.reason)
    try:
        paths = OutputPaths(plan.settings.result_dir, sample.id, plan.settings.logic.top_k)
        return finish_sample(collected, plan, paths)
    except OSError:  # such as a full disk, which fails every sample that follows
        raise
    except ValueError as error:
        return RowFailure(sample.line_number, sample.id, str(error))
    except Exception as error:
        logger.exception("Sample %r failed in a way that should not happen.", sample.id)
        return RowFailure(sample.line_number, sample.id, f"{type(error).__name__}: {error}")
