"""What the report is made of, handed in by whoever has read the files of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from lab.boxes import Box
from lab.records import CollectedAttention

Head = tuple[int, int]

SCORE_NAMES = {
    "sum": "attention sum",
    "entropy": "spatial entropy",
    "iou": "IoU of its own box",
    "enrichment": "enrichment in the true box",
    "frequency": "selection frequency",
}
"""Scores that colour the matrix of heads; the last one belongs to the data set, the others to a sample."""

FILTER_REASONS = (
    "",
    "in a layer that is left out",
    "attention sum below the threshold",
    "looks at the bottom row",
    "no component above its mean",
    "its layer has no map",
)
"""Why a head was not open to choice; 0 stands for none."""


@dataclass(frozen=True)
class BoxRules:
    """How a map becomes a box, as in `bbox.localize`.

    Attributes:
        sigma: Standard deviation of the Gaussian, in cells.
        truncate: Where it ends, in standard deviations.
        threshold: Threshold of the mask, as a multiple of the mean.
        region: `largest`, `heaviest` or `all`.
        edges: `cells` or `fractional`; None where boxes of whole cells are all that there is.
        edge_most: The farthest that a fractional edge moves, in cells.
        edge_power: How soon a line of cells counts as filled.
    """

    sigma: float
    truncate: float
    threshold: float
    region: str
    edges: Optional[str] = None
    edge_most: float = 0.7
    edge_power: float = 0.25


@dataclass(frozen=True)
class Bar:
    """One value with its interval.

    Attributes:
        name: What it is.
        value: How much.
        low: Lower end of the interval, or None where there is none.
        high: Upper end.
        note: More about it.
    """

    name: str
    value: float
    low: Optional[float] = None
    high: Optional[float] = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of words: its caption, the names of its columns, and its rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class DatasetPart:
    """What the whole data set says of the heads.

    Attributes:
        num_samples: Number of samples behind it.
        source: A sentence that says where the numbers come from.
        mean_sums: `[layers, heads]` mean attention sums, NaN where there is none.
        threshold: Threshold of the sums, or None.
        frequency: `[layers, heads]` selection frequency in [0, 1], or None.
        scores: Scores of the run.
        audit: The fixed heads and their rivals.
        verdict: What the audit says in a sentence.
        threshold_range: Lowest and highest threshold where each sample has its own, or None.
        table: Ways of choosing heads side by side, or None.
    """

    num_samples: int
    source: str
    mean_sums: np.ndarray
    threshold: Optional[float] = None
    frequency: Optional[np.ndarray] = None
    scores: Sequence[Bar] = ()
    audit: Sequence[Bar] = ()
    verdict: Optional[str] = None
    threshold_range: Optional[tuple[float, float]] = None
    table: Optional[Table] = None


@dataclass(frozen=True)
class OtherRow:
    """The same sample in another run: its id, box, IoU (None without a true box) and the names of its heads."""

    id: str
    box_xyxy: Optional[Box]
    iou: Optional[float]
    heads: str


@dataclass(frozen=True)
class OtherRun:
    """Another run of the same rows.

    Attributes:
        title: What it is called on the page.
        rows: Its rows.
        scores: Both runs and their difference, over the rows that they share.
    """

    title: str
    rows: Sequence[OtherRow]
    scores: Sequence[Bar] = ()


@dataclass(frozen=True)
class ReportSample:
    """One picture of the report.

    Attributes:
        collected: Its attention, grid, image and phrase.
        file: Where the attention lies, for the command that reproduces a view.
        heads: The heads that the run used, in order.
        source: Where they came from, in words.
        ranked: Heads in the order in which a larger k would use them; begins with `heads`.
        filtered: `[layers, heads]` integers, places in `FILTER_REASONS`.
        scores: `[layers, heads]` float by name, of `SCORE_NAMES`; NaN where there is none, infinite where no component.
        box_xyxy: The box of the run, or None.
        truth_xyxy: The true box, or None where it is not known.
        confidence: How sure the run was, or None.
        last_token: The token whose attention is shown, or None.
        notes: Sentences of the run about the choice.
    """

    collected: CollectedAttention
    file: str
    heads: Sequence[Head]
    source: str
    ranked: Sequence[Head]
    filtered: np.ndarray
    scores: Mapping[str, np.ndarray]
    box_xyxy: Optional[Box] = None
    truth_xyxy: Optional[Box] = None
    confidence: Optional[float] = None
    last_token: Optional[str] = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ReportRun:
    """What all pictures of the report share.

    Attributes:
        title: Title of the page.
        model_name: The model.
        about: Sentences at the top: which run, which pictures, how they were chosen.
        command: The command that makes the report again.
        num_layers: Layers of the model.
        num_heads: Heads of each layer.
        num_cells: Cells of the largest grid.
        rules: How the run made boxes.
        top_k: Number of heads that it used.
        fixed: Heads that are fixed for the data set, or most often used.
        wanted: Heads whose maps shall be kept for every picture, most wanted first.
        dataset: What the data set says.
        num_samples: Number of pictures.
        seed: Seed of the random heads that are kept as a control.
        empty_layers: Layers without any map.
        failures: Id and reason of each row that the run could not finish.
        against: Another run to compare with, or None.
    """

    title: str
    model_name: str
    about: Sequence[str]
    command: str
    num_layers: int
    num_heads: int
    num_cells: int
    rules: BoxRules
    top_k: int
    fixed: Sequence[Head]
    wanted: Sequence[Head]
    dataset: DatasetPart
    num_samples: int
    seed: int = 0
    empty_layers: Sequence[int] = ()
    failures: Sequence[tuple[str, str]] = ()
    against: Optional[OtherRun] = None
