"""A collector's exception costs the rows that it comes from, not all that were still to come."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from lab.records import Sample
from stages.loading import Collector

if TYPE_CHECKING:
    from collector import Collected

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LostRow:
    """A sample over which the collector broke.

    Attributes:
        sample: What was asked of which image.
        reason: What the collector raised.
    """

    sample: Sample
    reason: str


def collect_guarded(collector: Collector, samples: Sequence[Sample]) -> Iterator[Union[Collected, LostRow]]:
    """Collect the attention of samples, whatever the collector raises on the way.

    An exception does not say which of the rows that were read ahead it comes from. So the rows about the next image
    are asked for one by one, which finds the one to blame, and then the others together as before.

    Args:
        collector: Runs the model.
        samples: What to ask of which image.

    Yields:
        For each sample, in order, its attention or the reason why there is none.
    """
    done = 0
    while done < len(samples):
        try:
            for outcome in _collect_all(collector, samples[done:]):
                done += 1
                yield outcome
        except Exception as error:
            logger.debug("The collector broke; going on row by row.", exc_info=error)
            group = _rows_of_one_image(samples[done:])
            done += len(group)
            for sample in group:
                yield _collect_one(collector, sample)


def _collect_all(collector: Collector, samples: Sequence[Sample]) -> Iterator[Collected]:
    """Collect, and make sure that each sample gets its own result."""
    done = 0
    for outcome in collector.collect(samples):
        if done == len(samples) or outcome.sample.id != samples[done].id:
            raise RuntimeError("the collector gave a result out of turn")
        done += 1
        yield outcome
    if done < len(samples):
        raise RuntimeError("the collector gave no result")


def _rows_of_one_image(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample with those that follow about the same image."""
    count = next((n for n, sample in enumerate(samples) if sample.image_file != samples[0].image_file), len(samples))
    return list(samples[:count])


def _collect_one(collector: Collector, sample: Sample) -> Union[Collected, LostRow]:
    try:
        [outcome] = _collect_all(collector, [sample])
        return outcome
    except Exception as error:
        logger.debug("No attention for %r.", sample.id, exc_info=error)
        return LostRow(sample, describe_exception(error))


def describe_exception(error: Exception) -> str:
    """Say in one line what went wrong; errors that are no sentence of ours keep their type's name.

    Args:
        error: What was raised.

    Returns:
        One line.
    """
    text = " ".join(str(error).split())
    text = text if len(text) <= 600 else f"{text[:597]}..."
    is_sentence = isinstance(error, ValueError) and text.startswith("Expected ")
    return text if is_sentence else f"{type(error).__name__}: {text}".rstrip(": ")
