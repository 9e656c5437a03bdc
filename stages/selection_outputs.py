"""What a data set's choice of heads leaves behind: files, figures, and a summary for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyze import elbow_threshold, frequency_by_size
from lab.command_line.tables import format_table
from lab.config.settings import LogicSettings
from lab.heads.head_scores import DatasetSelection
from lab.heads.heads_file import heads_file_from_selection, write_heads_file
from lab.heads.selection_records import SelectionSpread, count_rows, describe_head, head_record, selection_record
from lab.statistics.bootstrap import FEWEST_CLUSTERS
from lab.storage import files
from stages.survey import Survey

HEADS_SHOWN = 10
MIN_SAMPLES_OF_A_CURVE = 10
_CURVE_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def write_selection(
    directory: Path,
    survey: Survey,
    selection: DatasetSelection,
    spread: SelectionSpread,
    digest: str,
    logic: LogicSettings,
) -> list[Path]:
    """Write the selection as JSON, the counts as CSV, and the heads as a heads file.

    Args:
        directory: Where to write.
        survey: The files that were read.
        selection: What the data set chose.
        spread: How sure that is.
        digest: Hash of what was read.
        logic: The settings that it was made with; they are recorded.

    Returns:
        Paths of the three files.
    """
    made_with = {"model_name": survey.origin.model_name, "template": survey.origin.template, "inputs_sha256": digest}
    record = selection_record(selection, spread, ids=survey.ids, **made_with)
    json_path = directory / "batch_selected_heads.json"
    csv_path = directory / "batch_selected_heads_counts.csv"
    heads_path = directory / "heads.yaml"
    files.save_json(json_path, {**record, "settings": dataclasses.asdict(logic)})
    write_csv(csv_path, count_rows(selection, spread.frequency))
    rules = dataclasses.asdict(selection.rules)
    write_heads_file(heads_path, heads_file_from_selection(selection, rules=rules, **made_with))
    return [json_path, csv_path, heads_path]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, at least one, as CSV; the first one's keys are the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.atomic_write(path, text.getvalue())


def draw_selection(
    directory: Path,
    survey: Survey,
    selection: DatasetSelection,
    spread: SelectionSpread,
) -> list[Path]:
    """Draw the elbow, two maps over layers and heads, the most frequent heads and, with enough files, a curve.

    Args:
        directory: Where to write.
        survey: The files that were read.
        selection: What the data set chose.
        spread: How sure that is.

    Returns:
        Paths of the figures.
    """
    from viz import draw_elbow, draw_head_frequency_bars, draw_layer_head_map

    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    names = [f"L{layer}H{head}" for layer, head in ranked]
    frequency = [float(selection.frequency[head]) for head in ranked]
    errors = (
        None
        if spread.frequency.num_pictures < FEWEST_CLUSTERS
        else [float(spread.frequency.se[head]) for head in ranked]
    )
    paths = [directory / f"batch_{name}.png" for name in ("elbow", "mean_sum_map", "frequency_map", "top_heads")]
    draw_elbow(paths[0], selection.mean_sums, _elbow_of_the_curve(selection))
    draw_layer_head_map(
        paths[1], selection.mean_sums, "Mean attention sum", "mean sum over the image", marked=selection.heads
    )
    draw_layer_head_map(
        paths[2],
        selection.frequency,
        "Selection frequency",
        "samples that chose the head",
        marked=selection.heads,
        percent=True,
    )
    draw_head_frequency_bars(paths[3], names, frequency, errors, num_fixed=len(selection.heads))
    return [*paths, *_draw_curve(directory, survey, selection)]


def _draw_curve(directory: Path, survey: Survey, selection: DatasetSelection) -> list[Path]:
    """Frequency of the fixed heads against number of samples, where there are enough for a curve."""
    count = len(survey.sources)
    if count < 2 * MIN_SAMPLES_OF_A_CURVE:
        return []
    from viz import draw_frequency_vs_samples

    # A step close to the end would lie, and be labelled, over it.
    sizes = [size for size in _CURVE_STEPS if size <= 0.8 * count] + [count]
    mean, low, high = frequency_by_size(survey.scores, selection.rules, selection.heads, survey.pictures, sizes=sizes)
    path = directory / "batch_frequency_by_samples.png"
    names = [f"L{layer}H{head}" for layer, head in selection.heads]
    draw_frequency_vs_samples(path, sizes, mean, (high - low) / (2 * 1.96), names)
    return [path]


def _elbow_of_the_curve(selection: DatasetSelection) -> float:
    """The threshold of all samples, or the elbow of the mean sums that are drawn: no mean of the samples' own."""
    common = selection.common_threshold
    return elbow_threshold(selection.mean_sums) if common is None else common


def describe_selection(survey: Survey, selection: DatasetSelection, spread: SelectionSpread) -> list[str]:
    """Say what was read, the threshold, the most frequent heads, and how sure the choice is."""
    left_out = f" ({survey.failed} left out)" if survey.failed else ""
    lines = [
        f"read    {len(survey.sources)} files about {spread.frequency.num_pictures} pictures of "
        f"{survey.origin.model_name}, template {survey.origin.template}{left_out}",
        f"tau     {_describe_threshold(selection)}",
    ]
    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    records = [head_record(selection, head, spread) for head in ranked]
    lines += format_table([describe_head(record) for record in records])
    if any(record["tied"] for record in records):
        lines.append("        = chosen as often as another head: entropy, then sum, decides between them")
    return [*lines, *_describe_spread(selection, spread)]


def _describe_spread(selection: DatasetSelection, spread: SelectionSpread) -> list[str]:
    ties, frequency, trials = spread.ties, spread.frequency, spread.trials
    names = f"the same {len(selection.heads)} heads"
    lines = [
        f"again   {names} in {frequency.repeat_rate:.1%} of {frequency.resamples} resamples of the pictures",
        f"ties    the last head of {ties.tied_entropy:.0%} of the files ties in entropy with the next and is chosen by "
        f"its sum; in {ties.tied_sum:.0%} the sums differ by less than they are known to",
    ]
    if trials is not None:
        agreement, bound = trials.agreement_with(selection.heads), trials.agreement_bound(selection.heads)
        lines.append(f"trials  {agreement:.0%} of {trials.num_trials} choose {names} (at least {bound:.0%}, 95 %)")
    return lines


def _describe_threshold(selection: DatasetSelection) -> str:
    common, thresholds = selection.common_threshold, selection.thresholds
    if common is None:
        return f"of each file its own elbow, {thresholds.min():.4f} to {thresholds.max():.4f}"
    as_given = selection.rules.threshold_value is not None
    by_dataset = selection.rules.threshold_scope == "dataset"
    return (
        f"{common:.4f}, {'as given' if as_given else 'the elbow of the mean sums' if by_dataset else 'of every file'}"
    )
