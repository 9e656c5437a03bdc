"""What a data set's choice of heads leaves behind: files, figures, and a summary for people."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command_line.tables import format_table
from lab.config.settings import LogicSettings
from lab.heads.head_scores import DatasetSelection
from lab.heads.heads_file import heads_file_from_selection, write_heads_file
from lab.heads.selection_records import SelectionSpread, count_rows, describe_head, head_record, selection_record
from lab.storage import files
from stages.survey import Survey

HEADS_SHOWN = 10


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
