"""What the audit of a model's heads leaves behind: files, a figure, and a summary for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from command_line.tables import format_table
from lab.config.settings import Settings
from lab.heads.ablation import AblationRow, Variant, compare_variants
from lab.heads.audit import HeadAudit
from lab.heads.comparisons import IOU_THRESHOLDS, Rival, Scores, acc_name
from lab.heads.measures import SampleAudit
from lab.statistics.bootstrap import Interval, cluster_intervals
from lab.statistics.rank_correlation import RankCorrelation
from lab.storage import files
from scores.truths import Truth
from stages.selection_outputs import write_csv
from stages.survey import Survey

if TYPE_CHECKING:
    from viz import AuditBar


@dataclass(frozen=True)
class AuditedRows:
    """The files that have a ground truth.

    Attributes:
        survey: All files that were read.
        rows: `[rows]` int, which of the survey's files.
        truths: Ground truth of each.
        clusters: `[rows]` int, picture of each, from 0.
    """

    survey: Survey
    rows: np.ndarray
    truths: Sequence[Truth]
    clusters: np.ndarray

    @property
    def num_pictures(self) -> int:
        """Number of pictures."""
        return int(self.clusters.max()) + 1


def named_scores(scores: Scores) -> dict[str, float]:
    """Named values for the table of a sweep."""
    named = {acc_name(limit): found.estimate for limit, found in zip(IOU_THRESHOLDS, scores.acc)}
    return {"mean IoU": scores.iou.estimate, **named}


def describe_scores(scores: Scores, origin: str, num_truths: int) -> list[str]:
    """Say how the configured boxes score."""
    named = ", ".join(f"{acc_name(limit)} {found}" for limit, found in zip(IOU_THRESHOLDS, scores.acc))
    count = f"{scores.iou.num_rows} rows of {scores.iou.num_clusters} pictures, of {num_truths} with ground truth"
    return [f"boxes   mean IoU {scores.iou}, {named} ({origin}; {count}; 95 % intervals over pictures)"]


def write_audit(
    directory: Path,
    audit: HeadAudit,
    variants: Sequence[Variant],
    samples: Sequence[SampleAudit],
    audited: AuditedRows,
    settings: Settings,
    *,
    in_sample: bool,
) -> tuple[list[Path], tuple[AblationRow, ...]]:
    """Write the audit as CSV and JSON, with its figure if figures are wanted.

    Args:
        directory: Where to write.
        audit: The audit.
        variants: Ways of choosing heads, to be compared.
        samples: Measures of every row; the last sets of heads are those of the variants.
        audited: The rows.
        settings: The whole configuration.
        in_sample: Whether the heads were chosen with labels on these very rows.

    Returns:
        Paths, and the comparison of the variants.
    """
    csv_path, json_path = (directory / f"head_audit.{ending}" for ending in ("csv", "json"))
    ablation = _compare(variants, samples, audited, settings, audit.layers_without_map)
    write_csv(csv_path, audit.rows())
    record = {**audit.to_dict(), "in_sample": in_sample, "ablation": [row.to_dict() for row in ablation]}
    files.save_json(json_path, record)
    figures = _draw(directory, audit, settings, in_sample=in_sample) if settings.save_fig else []
    return [csv_path, json_path, *figures], ablation


def _compare(
    variants: Sequence[Variant],
    samples: Sequence[SampleAudit],
    audited: AuditedRows,
    settings: Settings,
    without: Sequence[int],
) -> tuple[AblationRow, ...]:
    reached = np.stack([sample.set_ious[-len(variants) :] >= 0.5 for sample in samples]).astype(np.float64)
    measures = {
        "IoU": np.stack([sample.iou_on[sample.own] for sample in samples]),
        "enrichment": np.stack([sample.enrichment_on[sample.own] for sample in samples]),
        "AUROC": np.stack([sample.auroc for sample in samples]),
    }
    return compare_variants(
        variants,
        measures,
        cluster_intervals(reached, audited.clusters),
        audited.rows,
        audited.clusters,
        skip_layers=settings.logic.skip_layers,
        layers_without_map=without,
    )


def _draw(directory: Path, audit: HeadAudit, settings: Settings, *, in_sample: bool) -> list[Path]:
    """Draw the audit, and give the paths of the figure in all its formats."""
    from viz import draw_head_audit, write_formats

    found = audit.correlations["IoU"]
    warning = " The heads were chosen with labels on these very rows." if in_sample else ""
    figure = draw_head_audit(
        None,
        audit.frequency,
        audit.means["box_iou"],
        fixed=audit.fixed,
        skip_layers=settings.logic.skip_layers,
        spearman=found.spearman,
        p_value=found.p_value.value if found.p_value else float("nan"),
        bars=[_bar("fixed heads", audit.scores.iou), *(_bar(rival.name, rival.scores.iou) for rival in audit.rivals)],
        control_bars=_control_bars(audit),
        verdict=audit.verdict.sentence() + warning,
        num_rows=audit.num_samples,
        num_pictures=audit.num_pictures,
        num_samples=audit.num_files,
        control_title="Phrase control: the fixed heads",
        dpi=settings.figures.dpi,
    )
    return write_formats(figure, directory / "head_audit.png", settings.figures.formats)


def _bar(label: str, interval: Interval) -> AuditBar:
    from viz import AuditBar

    return AuditBar.with_ends(label, interval.estimate, interval.low, interval.high)


def _control_bars(audit: HeadAudit) -> list[AuditBar]:
    """IoU of the fixed heads' boxes with the phrase's own target and with the others of its picture."""
    found = next((control for control in audit.control.fixed if control.measure == "IoU"), None)
    return [] if found is None else [_bar("own target", found.own), _bar("other targets", found.other)]


# --------------------------------------------------------------------------------------------------------------------
# For people
# --------------------------------------------------------------------------------------------------------------------


def describe_audit(audit: HeadAudit, ablation: Sequence[AblationRow]) -> list[str]:
    """Say how the fixed heads compare, whether they follow the phrase, and what the criteria contribute."""
    names = " ".join(f"L{layer}H{head}" for layer, head in audit.fixed)
    base = f"{audit.num_samples} rows of {audit.num_pictures} pictures"
    lines = [f"audit   {names} on {base}; 95 % intervals over pictures; p values after Holm in brackets"]
    lines += format_table([_fixed_row(audit.scores), *(_rival_row(rival) for rival in audit.rivals)])
    lines += [f"note    {audit.sets.note}"] if audit.sets.note else []
    lines += _describe_control(audit)
    lines += [_describe_correlation(name, found) for name, found in audit.correlations.items()]
    lines += _describe_ablation(ablation)
    reached = ", ".join(
        f"{acc_name(limit)} {acc.estimate:.4f}" for limit, acc in zip(IOU_THRESHOLDS, audit.ceiling.acc)
    )
    lines.append(f"ceiling mean IoU {audit.ceiling.iou.estimate:.4f}, {reached}: the best boxes of whole cells")
    return [*lines, f"verdict {audit.verdict.sentence()}"]


def _fixed_row(scores: Scores) -> dict[str, str]:
    return {"boxes of": "fixed heads", "mean IoU": str(scores.iou), "Acc@0.5": str(scores.acc[1])}


def _rival_row(rival: Rival) -> dict[str, str]:
    return {
        "boxes of": rival.name,
        "mean IoU": str(rival.scores.iou),
        "Acc@0.5": str(rival.scores.acc[1]),
        "IoU less": str(rival.difference.iou),
        "Acc@0.5 less": str(rival.difference.acc[1]),
        "test": f"{rival.p_value} ({rival.p_holm:.2g}) over {rival.over}",
    }


def _describe_control(audit: HeadAudit) -> list[str]:
    if not audit.control.fixed:
        return ["phrase  no picture has phrases about two targets: whether the heads follow the phrase cannot be told"]
    controls = [*audit.control.fixed, *(control for head in audit.control.by_head for control in head)]
    rows = [
        {
            "phrase": f"{control.measure} of {control.heads}",
            "own target": str(control.own),
            "other targets": str(control.other),
            "own above other": f"{control.own_above:.1%}",
            "test": str(control.p_value),
        }
        for control in controls
    ]
    return [*format_table(rows), f"        {audit.control.num_rows} rows have another target in their picture"]


def _describe_correlation(name: str, found: RankCorrelation) -> str:
    return f"rank    frequency and {name}: {_correlation(found)}"


def _correlation(found: RankCorrelation) -> str:
    if found.p_value is None:
        return f"not defined over {found.num_heads} heads"
    return (
        f"Spearman {found.spearman:+.2f} {_ends(found.low, found.high)} over {found.num_heads} heads, "
        f"{_ends(found.low_pictures, found.high_pictures)} over pictures, {found.p_value} within layers, "
        f"tau-b {found.kendall:+.2f}"
    )


def _ends(low: float, high: float) -> str:
    return "[no interval]" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"


def _describe_ablation(ablation: Sequence[AblationRow]) -> list[str]:
    rows = [
        {
            "chosen by": row.name,
            "heads": ", ".join(f"{name} {share:.2f}" for name, share in row.heads),
            **{f"Spearman {name}": f"{found.spearman:+.2f}" for name, found in row.correlations.items()},
            "Acc@0.5": str(row.acc50),
        }
        for row in ablation
    ]
    return format_table(rows)
