"""What a data set's choice of heads looks like: elbow, maps, bars and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from analyze import elbow_threshold, frequency_by_size
from lab.config.settings import FiguresSettings
from lab.heads.head_scores import DatasetSelection
from lab.heads.selection_records import SelectionSpread
from lab.statistics.bootstrap import FEWEST_CLUSTERS
from stages.selection_outputs import HEADS_SHOWN
from stages.survey import Survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_SAMPLES_OF_A_CURVE = 10
_CURVE_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(frozen=True)
class SelectionDrawing:
    """What the figures of one choice of heads have in common.

    Attributes:
        directory: Where to write.
        survey: The files that were read.
        selection: What the data set chose.
        spread: How sure that is.
        used: (layer, head) of the fixed heads that boxes are made with: those of a heads file, or the chosen ones.
        figures: Formats and resolution.
    """

    directory: Path
    survey: Survey
    selection: DatasetSelection
    spread: SelectionSpread
    used: Sequence[tuple[int, int]]
    figures: FiguresSettings

    @property
    def num_samples(self) -> int:
        """Number of samples that means and frequencies are over."""
        return self.selection.num_samples

    def write(self, name: str, figure: Figure) -> list[Path]:
        """Write a figure in every format, and give the paths."""
        from viz import write_formats

        return write_formats(figure, self.directory / f"batch_{name}.png", self.figures.formats)


def draw_selection(drawing: SelectionDrawing) -> list[Path]:
    """Draw the elbow, two maps over layers and heads, the most frequent heads and, with enough files, a curve.

    Args:
        drawing: What to draw, and where to.

    Returns:
        Paths of the figures.
    """
    return [
        *drawing.write("elbow", _elbow(drawing)),
        *drawing.write("mean_sum_map", _mean_sum_map(drawing)),
        *drawing.write("frequency_map", _frequency_map(drawing)),
        *drawing.write("top_heads", _top_heads(drawing)),
        *_curve(drawing),
    ]


def _elbow(drawing: SelectionDrawing) -> Figure:
    """The threshold of all samples, or the elbow of the mean sums that are drawn: no mean of the samples' own."""
    from viz import draw_elbow

    sums, common = drawing.selection.mean_sums, drawing.selection.common_threshold
    threshold = elbow_threshold(sums) if common is None else common
    note = "each sample was judged by the elbow of its own sums" if common is None else ""
    return draw_elbow(None, sums, threshold, note=note, num_samples=drawing.num_samples, dpi=drawing.figures.dpi)


def _mean_sum_map(drawing: SelectionDrawing) -> Figure:
    from viz import draw_layer_head_map

    return draw_layer_head_map(
        None,
        drawing.selection.mean_sums,
        "Mean attention sum",
        "mean sum over the image",
        marked=drawing.used,
        num_samples=drawing.num_samples,
        dpi=drawing.figures.dpi,
    )


def _frequency_map(drawing: SelectionDrawing) -> Figure:
    from viz import draw_layer_head_map

    return draw_layer_head_map(
        None,
        drawing.selection.frequency,
        "Selection frequency",
        "samples that chose the head",
        marked=drawing.used,
        percent=True,
        num_samples=drawing.num_samples,
        dpi=drawing.figures.dpi,
    )


def _top_heads(drawing: SelectionDrawing) -> Figure:
    from viz import draw_head_frequency_bars

    selection = drawing.selection
    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    return draw_head_frequency_bars(
        None,
        _names(ranked),
        [float(selection.frequency[head]) for head in ranked],
        _ends(drawing.spread, ranked),
        fixed=_names(drawing.used),
        num_samples=drawing.num_samples,
        ends_label=f"95 % intervals, {drawing.spread.frequency.num_pictures} pictures drawn again",
        dpi=drawing.figures.dpi,
    )


def _ends(spread: SelectionSpread, heads: Sequence[tuple[int, int]]) -> Optional[tuple[list[float], list[float]]]:
    """Ends of the heads' intervals; None where there are too few pictures to draw again."""
    frequency = spread.frequency
    if frequency.num_pictures < FEWEST_CLUSTERS:
        return None
    return [float(frequency.low[head]) for head in heads], [float(frequency.high[head]) for head in heads]


def _curve(drawing: SelectionDrawing) -> list[Path]:
    """Frequency of the fixed heads against number of samples, where there are enough for a curve."""
    survey, count = drawing.survey, drawing.num_samples
    if count < 2 * MIN_SAMPLES_OF_A_CURVE:
        return []
    from viz import draw_frequency_vs_samples

    # A step close to the end would lie, and be labelled, over it.
    sizes = [size for size in _CURVE_STEPS if size <= 0.8 * count] + [count]
    rules = drawing.selection.rules
    mean, low, high = frequency_by_size(survey.scores, rules, drawing.used, survey.pictures, sizes=sizes)
    names = _names(drawing.used)
    figure = draw_frequency_vs_samples(None, sizes, mean, (low, high), names, dpi=drawing.figures.dpi)
    return drawing.write("frequency_by_samples", figure)


def _names(heads: Sequence[tuple[int, int]]) -> list[str]:
    return [f"L{layer}H{head}" for layer, head in heads]
