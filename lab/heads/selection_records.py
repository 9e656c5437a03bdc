"""What a data set's choice of heads looks like in files: plain data for JSON, CSV and the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.heads.frequency import FrequencySpread
from lab.heads.head_scores import DatasetSelection
from lab.heads.head_sums import TieShares
from lab.heads.trials import TrialStatistics


@dataclass(frozen=True)
class SelectionSpread:
    """How sure a choice of heads is.

    Attributes:
        frequency: Spread of the selection frequencies when pictures are drawn again.
        ties: How often a tie-break decides what a sample chooses.
        trials: What trials, or several directories, chose; None where there were none.
    """

    frequency: FrequencySpread
    ties: TieShares
    trials: TrialStatistics | None = None


def count_rows(selection: DatasetSelection, spread: FrequencySpread) -> list[dict[str, Any]]:
    """Rows of `batch_selected_heads_counts.csv`, one for each head, most often chosen first."""
    return [
        {
            "layer": layer,
            "head": head,
            "count": int(selection.counts[layer, head]),
            "frequency": float(selection.frequency[layer, head]),
            "low": _plain(spread.low[layer, head]),
            "high": _plain(spread.high[layer, head]),
            "num_samples": selection.num_samples,
            "num_pictures": spread.num_pictures,
        }
        for layer, head in selection.ranked_heads()
    ]


def selection_record(
    selection: DatasetSelection,
    spread: SelectionSpread,
    *,
    ids: Sequence[str],
    model_name: str,
    template: str,
    inputs_sha256: str,
) -> dict[str, Any]:
    """Content of `batch_selected_heads.json`: all that was used, and what came out.

    Args:
        selection: What the data set chose.
        spread: How sure that is.
        ids: Identifier of each sample, in the order of the scores.
        model_name: Name of the model.
        template: Key of the prompt template.
        inputs_sha256: Hash of the inputs, such as `lab.heads.heads_file.hash_inputs` gives.

    Returns:
        Plain data for JSON; what is infinite or not known is None.

    Raises:
        ValueError: If there is not one id for each sample.
    """
    if len(ids) != selection.num_samples:
        raise ValueError(f"Expected an id for each of the {selection.num_samples} samples, but got {len(ids)}.")
    num_layers, num_heads = selection.counts.shape
    return {
        "model_name": model_name,
        "template": template,
        "index_base": 0,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_samples": selection.num_samples,
        "num_pictures": spread.frequency.num_pictures,
        "inputs_sha256": inputs_sha256,
        "rules": asdict(selection.rules),
        "threshold": _threshold_record(selection),
        "short_share": selection.short_share,
        "heads": [head_record(selection, head, spread) for head in selection.heads],
        "counts": [row for row in count_rows(selection, spread.frequency) if row["count"]],
        "resamples": spread.frequency.to_dict(),
        "ties": spread.ties.to_dict(),
        "trials": None if spread.trials is None else spread.trials.to_dict(selection.heads),
        "files": [
            {"id": sample_id, "heads": [list(divmod(int(index), num_heads)) for index in chosen if index >= 0]}
            for sample_id, chosen in zip(ids, selection.chosen)
        ],
    }


def head_record(selection: DatasetSelection, head: tuple[int, int], spread: SelectionSpread) -> dict[str, Any]:
    """What a data set says of one head, as plain data; also a row of the table on the terminal.

    `tied` says that another head was chosen just as often, so that entropy or sum decided between them.
    """
    entropy, count = float(selection.mean_entropies[head]), int(selection.counts[head])
    return {
        "layer": head[0],
        "head": head[1],
        "name": f"L{head[0]}H{head[1]}",
        "count": count,
        "tied": bool((selection.counts == count).sum() > 1),
        "frequency": float(selection.frequency[head]),
        "frequency_se": _plain(spread.frequency.se[head]),
        "frequency_low": _plain(spread.frequency.low[head]),
        "frequency_high": _plain(spread.frequency.high[head]),
        "trial_sd": None if spread.trials is None else float(spread.trials.frequency_sd[head]),
        "mean_attn_sum": float(selection.mean_sums[head]),
        "mean_spatial_entropy": entropy if np.isfinite(entropy) else None,
    }


def describe_head(record: Mapping[str, Any]) -> dict[str, str]:
    """One row of the table on the terminal, from `head_record`."""
    entropy, low = record["mean_spatial_entropy"], record["frequency_low"]
    row = {"head": record["name"], "frequency": f"{record['frequency']:.1%}{'=' if record['tied'] else ''}"}
    row["95 % interval"] = "-" if low is None else f"{low:.1%} to {record['frequency_high']:.1%}"
    if record["trial_sd"] is not None:
        row["sd of trials"] = f"{record['trial_sd']:.1%}"
    row["mean sum"] = f"{record['mean_attn_sum']:.4f}"
    row["mean entropy"] = "-" if entropy is None else f"{entropy:.4f}"
    return row


def _threshold_record(selection: DatasetSelection) -> dict[str, Any]:
    """The threshold of all samples, or None and the range of the samples' own, whose mean no sample uses."""
    return {
        "scope": selection.rules.threshold_scope,
        "value": selection.common_threshold,
        "mean_of_samples": float(selection.thresholds.mean()),
        "min": float(selection.thresholds.min()),
        "max": float(selection.thresholds.max()),
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
