"""Records: scores of many heads, the rules by which heads are chosen, and what a data set chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.records import HeadScore

ENTROPY_SHARES = ("mass", "area")
THRESHOLD_SCALES = ("absolute", "relative")
THRESHOLD_METHODS = ("chord",)
THRESHOLD_SCOPES = ("sample", "dataset")


@dataclass(frozen=True)
class HeadTable:
    """What the two criteria say of every head on one sample.

    Attributes:
        attn_sum: `[layers, heads]` float64, sum of attention over the image tokens.
        spatial_entropy: `[layers, heads]` float64, in nats; infinite where a map has no component.
        bottom_row_focus: `[layers, heads]` bool, whether a map's excess over its mean lies mostly in the bottom row.
        num_components: `[layers, heads]` int, number of 8-connected components.
        layers_without_map: 0-based layers without attention to the image; their numbers mean nothing.
    """

    attn_sum: np.ndarray
    spatial_entropy: np.ndarray
    bottom_row_focus: np.ndarray
    num_components: np.ndarray
    layers_without_map: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject arrays that are not `[layers, heads]` or differ in shape."""
        shapes = {
            array.shape for array in (self.attn_sum, self.spatial_entropy, self.bottom_row_focus, self.num_components)
        }
        if len(shapes) != 1 or len(self.attn_sum.shape) != 2:
            raise ValueError(
                f"Expected all arrays of a head table to share one shape [layers, heads], but got {sorted(shapes)}."
            )

    @property
    def known_sums(self) -> np.ndarray:
        """Attention sums `[layers with a map, heads]`."""
        return drop_layers(self.attn_sum, self.layers_without_map)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return int(self.attn_sum.shape[0])

    @property
    def num_heads(self) -> int:
        """Number of heads of each layer."""
        return int(self.attn_sum.shape[1])

    def score(self, layer: int, head: int) -> HeadScore:
        """The scores of one head.

        Raises:
            ValueError: If the model has no such head, or its layer no map.
        """
        check_head(layer, head, self.num_layers, self.num_heads)
        if layer in self.layers_without_map:
            raise ValueError(
                f"Expected L{layer}H{head} to have attention to the image, but got layer {layer}, which has none in "
                "this model. Name heads of other layers."
            )
        return HeadScore(
            layer=int(layer),
            head=int(head),
            attn_sum=float(self.attn_sum[layer, head]),
            spatial_entropy=float(self.spatial_entropy[layer, head]),
            bottom_row_focus=bool(self.bottom_row_focus[layer, head]),
            num_components=int(self.num_components[layer, head]),
        )


@dataclass(frozen=True)
class SelectionRules:
    """How heads are chosen; the `logic` group of the configuration as plain values.

    Attributes:
        top_k: Number of heads to use.
        min_keep: At least so many heads are ranked: missing ones are filled up with the largest attention sums.
        skip_layers: The first layers, left out.
        bottom_row_filter: Whether heads that look at the bottom row of the grid are left out.
        binarize_threshold: A cell belongs to a component when it exceeds the map's mean by more than this.
        threshold_scale: Whether that is `absolute`, or `relative` to the map's mean.
        entropy_shares: Share of a component in the entropy: `mass` (of the excess over the mean) or `area` (cells).
        threshold_method: How the threshold of criterion 1 is found: `chord`.
        threshold_value: A fixed threshold, such as the data set's, used instead of the elbow.
        threshold_scope: Over a data set, criterion 1 takes each `sample`'s sums and their elbow, or the `dataset`'s
            mean sums and theirs.
        lowest_n: Heads counted per sample for the selection frequency; None for `top_k`.
    """

    top_k: int = 3
    min_keep: int = 3
    skip_layers: int = 2
    bottom_row_filter: bool = True
    binarize_threshold: float = 0.001
    entropy_shares: str = "mass"
    threshold_scale: str = "absolute"
    threshold_method: str = "chord"
    threshold_value: float | None = None
    threshold_scope: str = "sample"
    lowest_n: int | None = None

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_at_least("top_k", self.top_k, 1)
        check_at_least("min_keep", self.min_keep, 0)
        check_at_least("skip_layers", self.skip_layers, 0)
        check_at_least("binarize_threshold", self.binarize_threshold, 0)
        check_one_of("entropy_shares", self.entropy_shares, ENTROPY_SHARES)
        check_one_of("threshold_scale", self.threshold_scale, THRESHOLD_SCALES)
        check_one_of("threshold_method", self.threshold_method, THRESHOLD_METHODS)
        check_one_of("threshold_scope", self.threshold_scope, THRESHOLD_SCOPES)
        if self.lowest_n is not None:
            check_at_least("lowest_n", self.lowest_n, 1)
        if self.threshold_value is not None and not np.isfinite(self.threshold_value):
            raise ValueError(f"Expected threshold_value to be a finite number, but got {self.threshold_value}.")

    @property
    def num_counted(self) -> int:
        """Heads counted per sample for the selection frequency."""
        return self.top_k if self.lowest_n is None else self.lowest_n


@dataclass(frozen=True)
class DatasetScores:
    """Scores of every head on every sample of a data set: all that is kept of the attention files.

    Attributes:
        attn_sum: `[samples, layers, heads]` float32.
        spatial_entropy: The same shape, float32; infinite where a map has no component.
        bottom_row_focus: The same shape, bool.
        layers_without_map: 0-based layers without attention to the image; their numbers mean nothing.
    """

    attn_sum: np.ndarray
    spatial_entropy: np.ndarray
    bottom_row_focus: np.ndarray
    layers_without_map: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Reject arrays that are empty, not three-dimensional, differ in shape, or hold NaN."""
        shapes = {array.shape for array in (self.attn_sum, self.spatial_entropy, self.bottom_row_focus)}
        if len(shapes) != 1 or self.attn_sum.ndim != 3 or self.attn_sum.size == 0:
            raise ValueError(
                "Expected the scores of a data set to share one shape [samples, layers, heads], none of them 0, "
                f"but got {sorted(shapes)}."
            )
        if not np.isfinite(self.attn_sum).all() or np.isnan(self.spatial_entropy).any():
            raise ValueError("Expected attention sums to be finite and entropies not to be NaN. Analyze again.")

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self.attn_sum)

    def take(self, indices: np.ndarray) -> DatasetScores:
        """The scores of some samples, `indices` being `[n]` integers; one may be there twice."""
        return DatasetScores(
            self.attn_sum[indices],
            self.spatial_entropy[indices],
            self.bottom_row_focus[indices],
            self.layers_without_map,
        )


@dataclass(frozen=True)
class DatasetSelection:
    """Which heads a data set chooses.

    Attributes:
        heads: (layer, head) of the `top_k` heads chosen most often, best first.
        counts: `[layers, heads]` int, number of samples that chose a head.
        chosen: `[samples, n]` int, the heads that each sample chose, best first, as `layer * num_heads + head`; -1
            where it chose fewer.
        thresholds: `[samples]` float64, what criterion 1 compared with; all equal for the scope `dataset`.
        mean_sums: `[layers, heads]` float64, mean attention sum.
        mean_entropies: `[layers, heads]` float64, mean over the samples where it is finite; infinite where
            it never is.
        rules: How they were chosen.
        layers_without_map: 0-based layers without attention to the image; their numbers mean nothing.
    """

    heads: tuple[tuple[int, int], ...]
    counts: np.ndarray
    chosen: np.ndarray
    thresholds: np.ndarray
    mean_sums: np.ndarray
    mean_entropies: np.ndarray
    rules: SelectionRules
    layers_without_map: tuple[int, ...] = ()

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    @property
    def known_sums(self) -> np.ndarray:
        """Mean attention sums `[layers with a map, heads]`."""
        return drop_layers(self.mean_sums, self.layers_without_map)

    @property
    def frequency(self) -> np.ndarray:
        """Share of the samples that chose a head, `[layers, heads]` float64."""
        return self.counts / self.num_samples

    @property
    def threshold(self) -> float:
        """The data set's threshold, to the last bit, or the mean over the samples' thresholds."""
        first = self.thresholds[0]
        return float(first if (self.thresholds == first).all() else self.thresholds.mean())

    @property
    def common_threshold(self) -> float | None:
        """The threshold that all samples share; None where each has its own, of which the mean is no sample's."""
        return float(self.thresholds[0]) if (self.thresholds == self.thresholds[0]).all() else None

    @property
    def short_share(self) -> float:
        """Share of the samples with fewer heads to count than asked for; near 1, counts say little: lower lowest_n."""
        return float((self.chosen[:, -1] < 0).mean())

    def ranked_heads(self) -> list[tuple[int, int]]:
        """(layer, head) of every head that has a map, most often chosen first.

        Ties go by lower mean entropy, then larger mean sum, then (layer, head): where criterion 1 leaves so few heads
        that every sample counts them all, criterion 2 still decides.
        """
        order = np.lexsort((-self.mean_sums.ravel(), self.mean_entropies.ravel(), -self.counts.ravel()))
        heads = (divmod(int(index), self.counts.shape[1]) for index in order)
        return [(layer, head) for layer, head in heads if layer not in self.layers_without_map]


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------


def kept_heads(shape: tuple[int, ...], skip_layers: int, layers_without_map: Sequence[int] = ()) -> np.ndarray:
    """Flat indices, ascending, of the heads that the rules may choose, of a model of `shape` layers and heads."""
    layers = np.repeat(np.arange(shape[0]), shape[1])
    result: np.ndarray = np.flatnonzero((layers >= skip_layers) & ~np.isin(layers, list(layers_without_map)))
    return result


def drop_layers(values: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Values `[..., layers, heads]` of the other layers; the same array where no layer is dropped."""
    return np.delete(values, list(layers), axis=-2) if len(layers) else values


def check_head(layer: int, head: int, num_layers: int, num_heads: int) -> None:
    """Reject a head that the model does not have."""
    if not (0 <= layer < num_layers and 0 <= head < num_heads):
        raise ValueError(
            f"Expected a layer from 0 to {num_layers - 1} and a head from 0 to {num_heads - 1}, "
            f"but got layer {layer}, head {head}. Layers and heads count from 0."
        )


def check_at_least(name: str, value: float, minimum: float) -> None:
    """Reject a number below a minimum, and NaN."""
    if not value >= minimum:
        raise ValueError(f"Expected {name} to be at least {minimum}, but got {value}.")


def check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Reject an unknown word."""
    if value not in known:
        raise ValueError(f"Expected {name} to be one of {', '.join(known)}, but got {value!r}.")
