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
from bbox import localize_heads
from lab.boxes import box_iou
from lab.config.settings import Settings
from lab.heads.ablation import Variant, ablate
from lab.heads.audit import HeadAudit, summarize_audit
from lab.heads.comparisons import score_rows
from lab.heads.head_scores import DatasetSelection, HeadTable
from lab.heads.measures import SampleAudit, Targets, measure_sample
from lab.records import CollectedAttention
from lab.statistics.bootstrap import cluster_numbers
from lab.statistics.head_sets import HeadSets, comparison_sets
from scores.truths import Size, Truth, read_truths
from stages.audit_outputs import AuditedRows, describe_audit, describe_scores, named_scores, write_audit
from stages.choosing import choose_for, fractional_edges, localize_choice, score_sample
from stages.labelled import warn_in_sample, write_labelled
from stages.plan import Plan, Steps, find_in_project, make_plan, selection_rules
from stages.stored_attention import load_stored
from stages.survey import Survey, Unusable, read_each

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class _Work:
    """All that measuring a file needs to know.

    Attributes:
        plan: How boxes are made.
        truths: Ground truth by id.
        targets: Distinct boxes of each picture, by its name.
        pictures: Name of the picture of each id.
        sets: Sets of heads to compare with.
        members: `[sets, K]`, these sets and then those of the ablation.
    """

    plan: Plan
    truths: Mapping[str, Truth]
    targets: Mapping[str, tuple[tuple[float, float, float, float], ...]]
    pictures: Mapping[str, str]
    sets: HeadSets
    members: np.ndarray


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
    truths = _read_truths(settings, _sizes(survey))
    rows = np.flatnonzero([source.id in truths for source in survey.sources])
    if not len(rows):
        raise ValueError(
            f"Expected {settings.data.ground_truth} to hold boxes for the ids of the attention files, such as "
            f"{survey.ids[0]!r}, but got none of them. Choose the key of the ids with data.id_field."
        )
    plan, origin = _box_plan(settings, selection)
    heads = plan.fixed_heads or selection.heads
    variants = ablate(survey.scores, selection)
    work = _plan_work(survey, rows, truths, plan, heads, variants)
    paths = [survey.sources[row].path for row in rows]
    measured = list(_measure_all(paths, work, settings))
    clusters = cluster_numbers([survey.sources[row].picture for row in rows])
    scores = score_rows(np.array([[found.iou] for found in measured]), clusters)[0]
    audited = AuditedRows(survey, rows, [truths[survey.ids[row]] for row in rows], clusters)
    lines = describe_scores(scores, origin, len(truths))
    warning = warn_in_sample(plan.heads_file, audited, settings)
    lines += [f"note    {warning}"] if warning else []
    scored = " ".join(f"L{layer}H{head}" for layer, head in plan.fixed_heads or ()) or "per image"
    named = {"heads": scored, **named_scores(scores)}
    if not settings.data.audit:
        return TruthCheck(lines, named, [])
    samples = [found.audit for found in measured if found.audit is not None]
    audit = _summarize(samples, selection, heads, work.sets, rows, settings)
    written, ablation = write_audit(directory, audit, variants, samples, audited, settings, in_sample=bool(warning))
    labelled, best = write_labelled(directory, audit, audited, settings)
    lines += [*describe_audit(audit, ablation), *best]
    return TruthCheck(lines, named, [*written, labelled])


def heads_in_use(settings: Settings, selection: DatasetSelection) -> Sequence[tuple[int, int]]:
    """The fixed heads that a run is about: those of the heads file that its boxes are made with, else the chosen ones.

    Args:
        settings: The whole configuration.
        selection: What the data set chose.

    Returns:
        (layer, head) of each.

    Raises:
        ValueError: The heads file cannot be used.
    """
    if settings.data.ground_truth is None:
        return selection.heads
    return _box_plan(settings, selection)[0].fixed_heads or selection.heads


def _sizes(survey: Survey) -> dict[str, Size]:
    return {source.id: (float(source.image_size_wh[0]), float(source.image_size_wh[1])) for source in survey.sources}


def _read_truths(settings: Settings, sizes: Mapping[str, Size]) -> dict[str, Truth]:
    """Ground truth by id; the sizes of the pictures help to tell how its boxes are written."""
    data = settings.data
    found = read_truths(
        str(data.ground_truth), data.id_field, box_format=data.box_format, sizes=sizes, option="data.box_format"
    )
    for problem in found.broken:
        logger.warning("Ground truth left out: %s", problem)
    for reading in found.reading:
        logger.info("Boxes %s.", reading)
    return {truth.id: truth for truth in found.rows if truth.box_xyxy is not None}


def _box_plan(settings: Settings, selection: DatasetSelection) -> tuple[Plan, str]:
    """How boxes are made for the scores: heads of the file, if there is one, else as the threshold's scope says."""
    logic = settings.logic
    if logic.heads_file is not None and Path(find_in_project(logic.heads_file)).is_file():
        return make_plan(settings, Steps(box=True)), f"fixed heads of {logic.heads_file}"
    free = dataclasses.replace(settings, logic=dataclasses.replace(logic, heads_file=None))
    if logic.threshold.scope == "sample":
        return Plan(free, Steps(box=True)), "heads chosen per image"
    return Plan(free, Steps(box=True), fixed_heads=tuple(selection.heads)), "fixed heads, found here"


def _plan_work(
    survey: Survey,
    rows: np.ndarray,
    truths: Mapping[str, Truth],
    plan: Plan,
    heads: Sequence[tuple[int, int]],
    variants: Sequence[Variant],
) -> _Work:
    """The distinct targets of each picture, among the rows that are measured, and the sets of heads."""
    num_layers, num_heads = survey.scores.attn_sum.shape[1:]
    pictures = {survey.sources[row].id: survey.sources[row].picture for row in rows}
    targets: dict[str, dict[tuple[float, float, float, float], None]] = {}
    for sample_id, picture in pictures.items():
        targets.setdefault(picture, {})[truths[sample_id].target_xyxy] = None
    sets = comparison_sets(heads, num_layers, num_heads)
    flat = [[layer * num_heads + head for layer, head in variant.heads] for variant in variants]
    members = np.concatenate([sets.members, np.array(flat, dtype=np.intp)])
    distinct = {picture: tuple(boxes) for picture, boxes in targets.items()}
    return _Work(plan, truths, distinct, pictures, sets, members)


def _measure_all(paths: Sequence[Path], work: _Work, settings: Settings) -> Iterator[_Measured]:
    for found in read_each(paths, lambda path: _measure(path, work), settings, "audit"):
        if isinstance(found, Unusable):
            raise ValueError(found.reason)
        yield found


def _measure(path: Path, work: _Work) -> _Measured:
    collected, settings = load_stored(path), work.plan.settings
    truth = work.truths[collected.sample.id]
    table = score_sample(collected, settings)
    choice = choose_for(collected, table, work.plan)
    box_xyxy = localize_choice(collected, choice, settings).box_xyxy
    audit = _audit(collected, table, truth, work) if settings.data.audit else None
    return _Measured(audit, 0.0 if box_xyxy is None else box_iou(box_xyxy, truth.target_xyxy))


def _audit(collected: CollectedAttention, table: HeadTable, truth: Truth, work: _Work) -> SampleAudit:
    logic = work.plan.settings.logic
    picture = work.pictures[truth.id]
    boxes = work.targets[picture]
    found = localize_heads(
        collected.attention,
        collected.grid,
        collected.image_size_wh,
        head_sets=work.members,
        per_image_heads=_heads_per_image(table, work.plan),
        sigma=logic.smoothing.sigma,
        truncate=logic.smoothing.truncate,
        region=logic.mask.region,
        relative_threshold=logic.mask.relative_threshold,
        edges=fractional_edges(logic.mask),
    )
    mask = _read_mask(truth, collected, str(work.plan.settings.data.ground_truth))
    targets = Targets(picture, boxes, boxes.index(truth.target_xyxy), mask)
    return measure_sample(collected.attention, collected.grid, collected.image_size_wh, targets, found)


def _read_mask(truth: Truth, collected: CollectedAttention, truth_file: str) -> Optional[np.ndarray]:
    """Pixels of the row's object, `[height, width]` bool, where the row names a file for them; else None."""
    from PIL import Image

    name = truth.row.get("mask_path")
    if not isinstance(name, str) or not name:
        return None
    path = next((p for p in (Path(name), Path(truth_file).parent / name) if p.is_file()), None)
    if path is None:
        raise ValueError(f"Expected the mask of {truth.id!r} at {name!r}, but found none. Check mask_path.")
    with Image.open(path) as image:
        mask = np.asarray(image.convert("L")) > 0
    width, height = collected.image_size_wh
    if mask.shape != (height, width):
        raise ValueError(
            f"Expected the mask of {truth.id!r} to be as large as its image, {width} x {height} pixels, "
            f"but got {mask.shape[1]} x {mask.shape[0]}. Check mask_path."
        )
    return mask


def _heads_per_image(table: HeadTable, plan: Plan) -> tuple[tuple[int, int], ...]:
    """The heads that the criteria choose for one sample alone; none where no head passes the filters."""
    try:
        return tuple(choose_heads(table, rules=selection_rules(plan.settings)).indices)
    except ValueError:
        return ()


def _summarize(
    samples: Sequence[SampleAudit],
    selection: DatasetSelection,
    heads: Sequence[tuple[int, int]],
    sets: HeadSets,
    rows: np.ndarray,
    settings: Settings,
) -> HeadAudit:
    # The ablation's sets come behind those that are compared with.
    compared = [dataclasses.replace(one, set_ious=one.set_ious[: len(sets.members)]) for one in samples]
    return summarize_audit(
        compared,
        frequency=selection.frequency,
        chosen=selection.chosen[rows],
        num_files=selection.num_samples,
        fixed=heads,
        sets=sets,
        skip_layers=settings.logic.skip_layers,
        margin=settings.logic.audit_margin,
    )
