"""Does attention follow the phrase? The same attention against the other targets of the same picture.

Random heads, all heads and the whole picture cannot tell a head that looks at the target from one that looks at the
most salient thing of the picture. Another target of the same picture can: `Delta` is the mean over the rows of
`m(A_i, b_i)` less the mean of `m(A_i, b)` over the other targets `b` of row i's picture. Were the phrase of no account,
the boxes of a picture's rows could be exchanged among them; doing so at random gives the test, in which rows of one
picture stay together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lab.statistics.p_values import PValue, drawn

PERMUTATIONS = 10_000
_CHUNK = 250


@dataclass(frozen=True)
class PictureMeasures:
    """How the attention of each row of one picture fits each of the picture's targets.

    Attributes:
        own: `[rows]` int, which of the targets is the row's own.
        values: `[rows, targets, measures]`; larger fits better.
    """

    own: np.ndarray
    values: np.ndarray


def own_and_other(pictures: Sequence[PictureMeasures]) -> tuple[np.ndarray, np.ndarray]:
    """Value for the own target, and mean over the other targets of the picture, of every row: `[rows, measures]` each.

    Rows of pictures with one target have no other: NaN.
    """
    own, other = [], []
    for picture in pictures:
        chosen = picture.values[np.arange(len(picture.own)), picture.own]
        num_others = picture.values.shape[1] - 1
        rest = picture.values.sum(axis=1) - chosen
        own.append(chosen)
        other.append(rest / num_others if num_others else np.full(chosen.shape, np.nan))
    return np.concatenate(own), np.concatenate(other)


def permutation_tests(
    pictures: Sequence[PictureMeasures], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[PValue]:
    """One-sided tests of `Delta`, by permuting the boxes among the rows of each picture.

    Args:
        pictures: All pictures; those with one target say nothing and are left out.
        permutations: Number of random permutations.
        seed: Their seed.

    Returns:
        One p-value for each measure; 1 where no picture has two targets.
    """
    pictures = [picture for picture in pictures if picture.values.shape[1] > 1]
    if not pictures:
        return []
    gains = [_gains(picture) for picture in pictures]
    pairs = np.concatenate([gain.reshape(-1, gain.shape[2]) for gain in gains])
    observed = sum(gain[np.arange(len(p.own)), p.own].sum(axis=0) for gain, p in zip(gains, pictures))
    limit = observed - 1e-9 * np.maximum(1.0, np.abs(observed))
    reached = np.zeros(pairs.shape[1], dtype=np.int64)
    for chosen in _random_assignments(pictures, permutations, np.random.default_rng(seed)):
        reached += (chosen @ pairs >= limit).sum(axis=0)
    return [drawn(int(count), permutations, sides=1) for count in reached]


def _gains(picture: PictureMeasures) -> np.ndarray:
    """What a row gains if a target is its own: its value less the mean of the others, `[rows, targets, measures]`."""
    num_others = picture.values.shape[1] - 1
    total = picture.values.sum(axis=1, keepdims=True)
    gains: np.ndarray = picture.values - (total - picture.values) / num_others
    return gains.astype(np.float64)


def _random_assignments(
    pictures: Sequence[PictureMeasures], permutations: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Which (row, target) pairs are drawn, as 0 and 1, in chunks `[some, pairs of all pictures]`.

    A product with the gains of all pairs then sums what a permutation gives, for all measures at once.
    """
    first_pair = np.concatenate([[0], np.cumsum([p.values.shape[0] * p.values.shape[1] for p in pictures])])
    for start in range(0, permutations, _CHUNK):
        size = min(_CHUNK, permutations - start)
        chosen = np.zeros((size, first_pair[-1]))
        for picture, first in zip(pictures, first_pair):
            num_rows, num_targets = picture.values.shape[:2]
            order = rng.random((size, num_rows)).argsort(axis=1)
            pair = first + np.arange(num_rows) * num_targets + picture.own[order]
            chosen[np.arange(size)[:, None], pair] = 1.0
        yield chosen
