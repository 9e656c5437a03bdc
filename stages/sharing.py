"""Which rows share a forward pass: told by the input file alone, whatever is left to do of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from lab.records import Sample

# A picture with more rows has a call of its own, since the collector reads such a picture's rows in several goes.
ROWS_OF_A_PICTURE = 64


@dataclass(frozen=True)
class ForwardGroup:
    """Pictures that share a forward pass, with all their rows.

    Attributes:
        samples: The rows, those of a picture one after the other.
        is_full: Whether the next group may follow in the same call, since this one leaves no room in its forward.
    """

    samples: tuple[Sample, ...]
    is_full: bool


def plan_calls(samples: Iterable[Sample], pending: Set[str], batch_size: int) -> list[list[Sample]]:
    """Put the rows of a file in the order in which the collector is to read them.

    A number of an attention map may change in its last place with what else is in the forward pass. So a row that is
    still to be done is read together with the rows that it shares a forward with in a whole run, finished or not; that
    makes a resumed run's results equal to a whole run's, to the byte.

    Args:
        samples: All rows of the file that can be processed.
        pending: Ids of those that are still to be done.
        batch_size: Pictures in one forward pass.

    Returns:
        The rows of each call of the collector; a call begins with a new forward pass.
    """
    calls: list[list[Sample]] = []
    goes_on = False
    for group in forward_groups(samples, batch_size):
        if any(sample.id in pending for sample in group.samples):
            if not goes_on:
                calls.append([])
            calls[-1] += group.samples
            goes_on = group.is_full
    return calls


def forward_groups(samples: Iterable[Sample], batch_size: int) -> list[ForwardGroup]:
    """Divide the rows of a file into those that share a forward pass.

    Args:
        samples: All rows of the file that can be processed.
        batch_size: Pictures in one forward pass.

    Returns:
        The groups, pictures in the order of their first row.
    """
    by_picture: dict[str, list[Sample]] = {}
    for sample in samples:
        by_picture.setdefault(sample.image_file, []).append(sample)
    groups: list[ForwardGroup] = []
    waiting: list[list[Sample]] = []
    for rows in by_picture.values():
        alone = len(rows) > ROWS_OF_A_PICTURE
        if waiting and (alone or len(waiting) == batch_size):
            groups.append(_group(waiting, batch_size))
            waiting = []
        if alone:
            groups.append(ForwardGroup(tuple(rows), is_full=False))
        else:
            waiting.append(rows)
    return [*groups, _group(waiting, batch_size)] if waiting else groups


def _group(pictures: Sequence[Sequence[Sample]], batch_size: int) -> ForwardGroup:
    samples = tuple(sample for rows in pictures for sample in rows)
    return ForwardGroup(samples, is_full=len(pictures) == batch_size)
