"""Second reading of the attention files: boxes and heads against ground truth."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from analyze import choose_heads
from bbox import Box, box_iou
from evaluate_boxes import audit_sample, read_truths
from lab.config.settings import Settings
from lab.heads.audit import HeadAudit, SampleAudit, draw_random_sets, summarize_audit
from lab.heads.head_scores import DatasetSelection, HeadTable
from lab.heads.heads_file import heads_file_from_labels, write_heads_file
from lab.storage import files
from stages.choosing import choose_for, localize_choice, score_sample
from stages.plan import Plan, Steps, find_in_project, make_plan, selection_rules
from stages.selection_outputs import write_csv
from stages.stored_attention import load_stored
from stages.survey import Survey, Unusable, read_each

logger = logging.getLogger(__name__)

IOU_THRESHOLDS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class TruthCheck:
    """What the comparison with ground truth gave: summary, named scores, files."""

    lines: list[str]
    scores: dict[str, Any]
    written: list[Path]


@dataclass(frozen=True)
class _Measured:
    """One file against its ground truth: the audit of its heads, if wanted, and the IoU of the configured box."""

    audit: Optional[SampleAudit]
    iou: float


def check_against_truth(survey: Survey, selection: DatasetSelection, settings: Settings, directory: Path) -> TruthCheck:
    """Score the boxes that the configuration gives, and audit the heads.

    Args:
        survey: The files that were read.
        selection: What the data set chose.
        settings: The whole configuration.
        directory: Where the audit is written.

    Returns:
        Summary, scores and paths.

    Raises:
        ValueError: There is no ground truth for any of the files, or a file can no longer be read.
    """
    truths = _read_truths(settings)
    paths = [source.path for source in survey.sources if source.id in truths]
    if not paths:
        raise ValueError(
            f"Expected {settings.data.ground_truth} to hold boxes for the ids of the attention files, such as "
            f"{survey.ids[0]!r}, but got none of them. Choose the key of the ids with data.id_field."
        )
    plan, origin = _box_plan(settings, selection)
    num_layers, num_heads = selection.counts.shape
    heads: Sequence[tuple[int, int]] = plan.fixed_heads or selection.heads
    fixed = [[layer * num_heads + head for layer, head in heads]]
    head_sets = np.concatenate([np.array(fixed), draw_random_sets(heads, num_layers, num_heads)])
    ious: list[float] = []
    scored = " ".join(f"L{layer}H{head}" for layer, head in plan.fixed_heads or ()) or "per image"

    def audits() -> Iterator[SampleAudit]:
        for found in read_each(paths, lambda path: _measure(path, truths, head_sets, plan), settings, "audit"):
            if isinstance(found, Unusable):
                raise ValueError(found.reason)
            ious.append(found.iou)
            if found.audit is not None:
                yield found.audit

    if not settings.data.audit:
        for _ in audits():
            pass
        return TruthCheck(_describe_scores(ious, len(truths), origin), {"heads": scored, **_scores(ious)}, [])
    audit = summarize_audit(
        audits(), frequency=selection.frequency, fixed=heads, skip_layers=settings.logic.skip_layers
    )
    lines = [*_describe_scores(ious, len(truths), origin), *_describe_audit(audit)]
    return TruthCheck(lines, {"heads": scored, **_scores(ious)}, _write_audit(directory, audit, survey, settings))


def _read_truths(settings: Settings) -> dict[str, Box]:
    truths, problems = read_truths(str(settings.data.ground_truth), settings.data.id_field)
    for problem in problems:
        logger.warning("Ground truth left out: %s", problem)
    return {truth.id: truth.box_xyxy for truth in truths}


def _box_plan(settings: Settings, selection: DatasetSelection) -> tuple[Plan, str]:
    """How boxes are made for the scores: heads of the file, if there is one, else as the threshold's scope says."""
    logic = settings.logic
    if logic.heads_file is not None and Path(find_in_project(logic.heads_file)).is_file():
        return make_plan(settings, Steps(box=True)), f"fixed heads of {logic.heads_file}"
    free = dataclasses.replace(settings, logic=dataclasses.replace(logic, heads_file=None))
    if logic.threshold.scope == "sample":
        return Plan(free, Steps(box=True)), "heads chosen per image"
    return Plan(free, Steps(box=True), fixed_heads=tuple(selection.heads)), "fixed heads, found here"


def _measure(path: Path, truths: Mapping[str, Box], head_sets: np.ndarray, plan: Plan) -> _Measured:
    collected = load_stored(path)
    truth_xyxy = truths[collected.sample.id]
    smoothing, mask = plan.settings.logic.smoothing, plan.settings.logic.mask
    table = score_sample(collected, plan.settings)
    choice = choose_for(collected, table, plan)
    box_xyxy = localize_choice(collected, choice, plan.settings).box_xyxy
    audit = None
    if plan.settings.data.audit:
        audit = audit_sample(
            collected.attention,
            collected.grid,
            collected.image_size_wh,
            truth_xyxy,
            head_sets=head_sets,
            per_image_heads=_heads_per_image(table, plan),
            sigma=smoothing.sigma,
            truncate=smoothing.truncate,
            region=mask.region,
            relative_threshold=mask.relative_threshold,
        )
    return _Measured(audit, 0.0 if box_xyxy is None else box_iou(box_xyxy, truth_xyxy))


def _heads_per_image(table: HeadTable, plan: Plan) -> tuple[tuple[int, int], ...]:
    """The heads that the criteria choose for one sample alone; none where no head passes the filters."""
    try:
        return tuple(choose_heads(table, rules=selection_rules(plan.settings)).indices)
    except ValueError:
        return ()


def _scores(ious: Sequence[float]) -> dict[str, float]:
    values = np.array(ious)
    rates = {f"Acc@{threshold:g}": float((values >= threshold).mean()) for threshold in IOU_THRESHOLDS}
    return {"mean IoU": float(values.mean()), **rates}


def _describe_scores(ious: Sequence[float], num_truths: int, origin: str) -> list[str]:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in _scores(ious).items())
    return [f"boxes   {scores} ({origin}; {len(ious)} files of {num_truths} rows with ground truth)"]


def _describe_audit(audit: HeadAudit) -> list[str]:
    compared = (audit.per_image, *audit.rivals)
    rivals = ", ".join(f"{rival.name} {rival.mean_iou:.4f} (p {rival.p_value:.2g})" for rival in compared)
    return [
        f"audit   mean IoU of the fixed heads {audit.fixed_iou:.4f}; {rivals}",
        f"        Spearman of frequency and IoU {audit.spearman:+.2f} (p {audit.spearman_p:.2g})",
        f"        {audit.verdict}",
    ]


def _write_audit(directory: Path, audit: HeadAudit, survey: Survey, settings: Settings) -> list[Path]:
    """Write the audit, its figure, and the heads that the labels would choose: an upper bound to compare with."""
    csv_path, json_path, figure_path = (directory / f"head_audit.{ending}" for ending in ("csv", "json", "png"))
    heads_path = directory / "labelled_heads.yaml"
    written = [csv_path, json_path, heads_path]
    write_csv(csv_path, audit.rows())
    files.save_json(json_path, audit.to_dict())
    best_by_label = heads_file_from_labels(
        audit,
        top_k=settings.logic.top_k,
        model_name=survey.origin.model_name,
        template=survey.origin.template,
    )
    write_heads_file(heads_path, best_by_label)
    if not settings.save_fig:
        return written
    from viz import draw_head_audit

    compared = (audit.per_image, *audit.rivals)
    draw_head_audit(
        figure_path,
        audit.frequency,
        audit.means["box_iou"],
        fixed=audit.fixed,
        skip_layers=settings.logic.skip_layers,
        spearman=audit.spearman,
        p_value=audit.spearman_p,
        bar_names=["fixed heads", *(rival.name for rival in compared)],
        bar_values=[audit.fixed_iou, *(rival.mean_iou for rival in compared)],
        bar_sd=[0.0, *(rival.sd for rival in compared)],
    )
    return [*written, figure_path]
