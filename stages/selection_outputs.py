"""What a data set's choice of heads leaves behind: files, figures, and a summary for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from analyze import frequency_by_size
from lab.command_line.tables import format_table
from lab.config.settings import LogicSettings
from lab.heads.head_scores import DatasetSelection, count_rows, head_record, selection_record
from lab.heads.heads_file import heads_file_from_selection, write_heads_file
from lab.heads.trials import TrialStatistics
from lab.storage import files
from stages.survey import Survey

HEADS_SHOWN = 10
MIN_SAMPLES_OF_A_CURVE = 10
_CURVE_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def write_selection(
    directory: Path,
    survey: Survey,
    selection: DatasetSelection,
    trials: Optional[TrialStatistics],
    digest: str,
    logic: LogicSettings,
) -> list[Path]:
    """Write the selection as JSON, the counts as CSV, and the heads as a heads file.

    Args:
        directory: Where to write.
        survey: The files that were read.
        selection: What the data set chose.
        trials: Its spread over trials, if there were some.
        digest: Hash of what was read.
        logic: The settings that it was made with; they are recorded.

    Returns:
        Paths of the three files.
    """
    made_with = {"model_name": survey.origin.model_name, "template": survey.origin.template, "inputs_sha256": digest}
    record = selection_record(selection, ids=survey.ids, trials=trials, **made_with)
    json_path = directory / "batch_selected_heads.json"
    csv_path = directory / "batch_selected_heads_counts.csv"
    heads_path = directory / "heads.yaml"
    files.save_json(json_path, {**record, "settings": dataclasses.asdict(logic)})
    write_csv(csv_path, count_rows(selection))
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
    trials: Optional[TrialStatistics],
) -> list[Path]:
    """Draw the elbow, two maps over layers and heads, the most frequent heads and, with enough files, a curve.

    Args:
        directory: Where to write.
        survey: The files that were read.
        selection: What the data set chose.
        trials: Its spread over trials, if there were some.

    Returns:
        Paths of the figures.
    """
    from viz import draw_elbow, draw_head_frequency_bars, draw_layer_head_map

    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    names = [f"L{layer}H{head}" for layer, head in ranked]
    frequency = [float(selection.frequency[head]) for head in ranked]
    spread = None if trials is None else [float(trials.frequency_sd[head]) for head in ranked]
    paths = [directory / f"batch_{name}.png" for name in ("elbow", "mean_sum_map", "frequency_map", "top_heads")]
    draw_elbow(paths[0], selection.mean_sums, selection.threshold)
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
    draw_head_frequency_bars(paths[3], names, frequency, spread, num_fixed=len(selection.heads))
    return [*paths, *_draw_curve(directory, survey, selection)]


def _draw_curve(directory: Path, survey: Survey, selection: DatasetSelection) -> list[Path]:
    """Frequency of the fixed heads against number of samples, where there are enough for a curve."""
    count = len(survey.sources)
    if count < 2 * MIN_SAMPLES_OF_A_CURVE:
        return []
    from viz import draw_frequency_vs_samples

    # A step close to the end would lie, and be labelled, over it.
    sizes = [size for size in _CURVE_STEPS if size <= 0.8 * count] + [count]
    mean, spread = frequency_by_size(survey.scores, selection.rules, selection.heads, sizes=sizes)
    path = directory / "batch_frequency_by_samples.png"
    names = [f"L{layer}H{head}" for layer, head in selection.heads]
    draw_frequency_vs_samples(path, sizes, mean, spread, names)
    return [path]


def describe_selection(survey: Survey, selection: DatasetSelection, trials: Optional[TrialStatistics]) -> list[str]:
    """Say what was read, the threshold, the most frequent heads and how far trials agree."""
    left_out = f" ({survey.failed} left out)" if survey.failed else ""
    lines = [
        f"read    {len(survey.sources)} files of {survey.origin.model_name}, "
        f"template {survey.origin.template}{left_out}",
        f"tau     {selection.threshold:.4f}, {_describe_threshold(selection)}",
    ]
    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    lines += format_table([_head_row(head_record(selection, head, trials), trials is not None) for head in ranked])
    if trials is not None:
        agreement = trials.agreement_with(selection.heads)
        lines.append(
            f"trials  {trials.num_trials}; {agreement:.0%} of them choose the same {len(selection.heads)} heads"
        )
    return lines


def _describe_threshold(selection: DatasetSelection) -> str:
    if selection.rules.threshold_value is not None:
        return "as given"
    if selection.rules.threshold_scope == "dataset":
        return "the elbow of the mean attention sums"
    return "the mean over the files of the elbow of each"


def _head_row(record: Mapping[str, Any], with_spread: bool) -> dict[str, str]:
    entropy = record["mean_spatial_entropy"]
    row = {"head": record["name"], "frequency": f"{record['frequency']:.1%}"}
    if with_spread:
        row["sd"] = f"{record['frequency_sd']:.1%}"
    row["mean sum"] = f"{record['mean_attn_sum']:.4f}"
    row["mean entropy"] = "-" if entropy is None else f"{entropy:.4f}"
    return row
