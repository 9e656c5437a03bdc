"""Directories of attention files -> the heads that the data set chooses, with files, figures and an audit."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

import numpy as np

from lab.config.settings import Settings
from lab.records import CollectedAttention
from lab.storage import files
from lab.storage.attention_files import load_attention
from lab.storage.background import map_in_background
from lab.storage.paths import list_attention_files
from stages.flow import (
    Plan,
    StageModules,
    Steps,
    choose_for,
    find_in_project,
    localize_choice,
    make_plan,
    selection_rules,
)
from stages.summaries import describe_files, format_table

if TYPE_CHECKING:
    from lab.heads.audit import HeadAudit
    from lab.heads.head_scores import DatasetScores, DatasetSelection, HeadTable
    from lab.heads.trials import TrialStatistics

logger = logging.getLogger(__name__)

HEADS_SHOWN = 10
MIN_SAMPLES_OF_A_CURVE = 10
IOU_THRESHOLDS = (0.25, 0.5, 0.75)
_CURVE_STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

Box = tuple[float, float, float, float]
Found = TypeVar("Found")


@dataclass(frozen=True)
class SurveyResult:
    """What a survey found.

    Attributes:
        lines: Readable summary.
        failed: Number of files that could not be used.
        scores: Named values; a sweep lists them by job.
    """

    lines: tuple[str, ...]
    failed: int
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class _Origin:
    """What an attention file says of its making."""

    model_name: str
    template: str


@dataclass(frozen=True)
class _Source:
    """One attention file, and what it is about."""

    path: Path
    id: str
    origin: _Origin


@dataclass(frozen=True)
class _Unusable:
    """One attention file that could not be used."""

    path: Path
    reason: str


@dataclass(frozen=True)
class _Survey:
    """The files that were read, and the scores of all their heads.

    Attributes:
        sources: The files, in the order of the scores.
        directory_of: `[files]` int, number of the directory that each came from.
        scores: Scores of every head on every file.
        failed: Number of files that could not be used.
    """

    sources: tuple[_Source, ...]
    directory_of: np.ndarray
    scores: DatasetScores
    failed: int

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifier of each file."""
        return tuple(source.id for source in self.sources)

    @property
    def origin(self) -> _Origin:
        """What all files say of their making."""
        return self.sources[0].origin


def survey_attention(settings: Settings, modules: StageModules) -> SurveyResult:
    """Choose a model's heads over directories of attention files, and check them against boxes if there are any.

    The files are read one after the other and only the scores of their heads are kept; with ground truth they are read
    a second time.

    Args:
        settings: The whole configuration.
        modules: The stage modules that score, draw and measure.

    Returns:
        What was found; files and figures are written on the way.

    Raises:
        ValueError: There is no usable file, or the files are of several models.
    """
    from lab.heads.heads_file import hash_inputs

    survey = _read_all(settings, modules)
    rules = selection_rules(settings)
    selection = modules.analyze.select_dataset_heads(survey.scores, rules)
    trials = _run_trials(survey, settings, modules)
    digest = hash_inputs(survey.ids, survey.scores)
    directory = _analysis_dir(settings)
    written = _write_selection(directory, survey, selection, trials, digest)
    if settings.save_fig:
        written += _draw_selection(directory, survey, selection, trials, modules)
    lines = _describe_selection(survey, selection, trials)
    scores: dict[str, Any] = {
        "heads": " ".join(f"L{layer}H{head}" for layer, head in selection.heads),
        "threshold": selection.threshold,
    }
    if settings.data.ground_truth is not None:
        check = _check_against_truth(survey, selection, settings, modules, directory)
        written, lines, scores = [*written, *check.written], [*lines, *check.lines], {**scores, **check.scores}
    return SurveyResult((*lines, *describe_files(written)), survey.failed, scores)


def _analysis_dir(settings: Settings) -> Path:
    return Path(settings.data.analysis_dir or attention_dirs(settings)[0])


def attention_dirs(settings: Settings) -> tuple[str, ...]:
    """The directories to read: those given, or the model's own."""
    return settings.data.attention_dirs or (str(settings.result_dir),)


# --------------------------------------------------------------------------------------------------------------------
# First reading: scores of all heads
# --------------------------------------------------------------------------------------------------------------------


def _read_all(settings: Settings, modules: StageModules) -> _Survey:
    """Score every file of every directory."""
    by_directory = [list_attention_files(directory) for directory in attention_dirs(settings)]
    directory_of = {path: number for number, paths in enumerate(by_directory) for path in paths}
    if not directory_of:
        raise ValueError(
            f"Expected attention files (.pkl.gz or .pkl) in {', '.join(attention_dirs(settings))}, but got none. "
            "Make some with stage=batch, with storage.attention.save=true."
        )
    sources: list[_Source] = []
    unusable: list[_Unusable] = []

    def tables() -> Iterator[HeadTable]:
        for found in _read_each(list(directory_of), lambda path: _score(path, settings, modules), settings, "score"):
            if isinstance(found, _Unusable):
                unusable.append(found)
                logger.warning("Left out %s: %s", found.path, found.reason)
                continue
            source, table = found
            _check_origin(source, sources)
            sources.append(source)
            yield table

    scores = modules.analyze.stack_scores(tables())
    directories = np.array([directory_of[source.path] for source in sources])
    return _Survey(tuple(sources), directories, scores, len(unusable))


def _read_each(
    paths: Sequence[Path], function: Callable[[Path], Found], settings: Settings, what: str
) -> Iterator[Union[Found, _Unusable]]:
    """Apply a function to files in background threads, under a progress bar; a bad file does not stop the others."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    def guarded(path: Path) -> Union[Found, _Unusable]:
        try:
            return function(path)
        except (ValueError, OSError) as error:
            return _Unusable(path, str(error))

    results = map_in_background(guarded, paths, workers=settings.storage.workers)
    with logging_redirect_tqdm():
        yield from tqdm(results, total=len(paths), unit="file", desc=what)


def _score(path: Path, settings: Settings, modules: StageModules) -> tuple[_Source, HeadTable]:
    collected = load_attention(path)
    source = _Source(path, collected.sample.id, _origin_of(collected, settings))
    return source, _score_table(collected, settings, modules)


def _score_table(collected: CollectedAttention, settings: Settings, modules: StageModules) -> HeadTable:
    entropy = settings.logic.entropy
    return modules.analyze.score_heads(
        collected.attention,
        collected.grid.shape,
        binarize_threshold=entropy.binarize_threshold,
        entropy_shares=entropy.shares,
    )


def _origin_of(collected: CollectedAttention, settings: Settings) -> _Origin:
    """Model and template; files of the public tool do not say the template, so that the configured one is taken."""
    meta = collected.meta
    return _Origin(
        model_name=str(meta.get("model_name") or settings.model.name),
        template=str(meta.get("prompt_template") or settings.model.conv_mode),
    )


def _check_origin(source: _Source, before: Sequence[_Source]) -> None:
    if before and source.origin != before[0].origin:
        here, there = source.origin, before[0].origin
        raise ValueError(
            f"Expected all attention files to be of one model and template, but got {there.model_name} with "
            f"{there.template} in {before[0].path} and {here.model_name} with {here.template} in {source.path}. "
            "Give directories of one model."
        )


def _run_trials(survey: _Survey, settings: Settings, modules: StageModules) -> Optional[TrialStatistics]:
    """Compare parts or draws of the data (`data.trials`) or, without them, the directories; None where there is one."""
    from lab.heads.trials import trial_indices

    data, count = settings.data, len(survey.sources)
    if data.trials > 1:
        trials = trial_indices(count, data.trials, trial_size=data.trial_size, seed=data.trial_seed)
    else:
        trials = [np.flatnonzero(survey.directory_of == number) for number in np.unique(survey.directory_of)]
    return modules.analyze.run_trials(survey.scores, selection_rules(settings), trials) if len(trials) > 1 else None


# --------------------------------------------------------------------------------------------------------------------
# What is written
# --------------------------------------------------------------------------------------------------------------------


def _write_selection(
    directory: Path,
    survey: _Survey,
    selection: DatasetSelection,
    trials: Optional[TrialStatistics],
    digest: str,
) -> list[Path]:
    from lab.heads.head_scores import count_rows, selection_record
    from lab.heads.heads_file import heads_file_from_selection, write_heads_file

    made_with = {"model_name": survey.origin.model_name, "template": survey.origin.template, "inputs_sha256": digest}
    record = selection_record(selection, ids=survey.ids, trials=trials, **made_with)
    json_path = directory / "batch_selected_heads.json"
    csv_path = directory / "batch_selected_heads_counts.csv"
    heads_path = directory / "heads.yaml"
    files.save_json(json_path, record)
    _write_csv(csv_path, count_rows(selection))
    rules = dataclasses.asdict(selection.rules)
    write_heads_file(heads_path, heads_file_from_selection(selection, rules=rules, **made_with))
    return [json_path, csv_path, heads_path]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.atomic_write(path, text.getvalue())


def _draw_selection(
    directory: Path,
    survey: _Survey,
    selection: DatasetSelection,
    trials: Optional[TrialStatistics],
    modules: StageModules,
) -> list[Path]:
    viz = modules.viz
    ranked = [head for head in selection.ranked_heads() if selection.counts[head]][:HEADS_SHOWN]
    names = [f"L{layer}H{head}" for layer, head in ranked]
    frequency = [float(selection.frequency[head]) for head in ranked]
    spread = None if trials is None else [float(trials.frequency_sd[head]) for head in ranked]
    paths = [directory / f"batch_{name}.png" for name in ("elbow", "mean_sum_map", "frequency_map", "top_heads")]
    viz.draw_elbow(paths[0], selection.mean_sums, selection.threshold)
    viz.draw_layer_head_map(
        paths[1], selection.mean_sums, "Mean attention sum", "mean sum over the image", marked=selection.heads
    )
    viz.draw_layer_head_map(
        paths[2],
        selection.frequency,
        "Selection frequency",
        "samples that chose the head",
        marked=selection.heads,
        percent=True,
    )
    viz.draw_head_frequency_bars(paths[3], names, frequency, spread, num_fixed=len(selection.heads))
    return [*paths, *_draw_curve(directory, survey, selection, modules)]


def _draw_curve(directory: Path, survey: _Survey, selection: DatasetSelection, modules: StageModules) -> list[Path]:
    """Frequency of the fixed heads against number of samples, where there are enough for a curve."""
    count = len(survey.sources)
    if count < 2 * MIN_SAMPLES_OF_A_CURVE:
        return []
    # A step close to the end would lie, and be labelled, over it.
    sizes = [size for size in _CURVE_STEPS if size <= 0.8 * count] + [count]
    mean, spread = modules.analyze.frequency_by_size(survey.scores, selection.rules, selection.heads, sizes=sizes)
    path = directory / "batch_frequency_by_samples.png"
    names = [f"L{layer}H{head}" for layer, head in selection.heads]
    modules.viz.draw_frequency_vs_samples(path, sizes, mean, spread, names)
    return [path]


def _describe_selection(survey: _Survey, selection: DatasetSelection, trials: Optional[TrialStatistics]) -> list[str]:
    from lab.heads.head_scores import head_record

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


# --------------------------------------------------------------------------------------------------------------------
# Second reading: against ground truth
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Check:
    """What the comparison with ground truth gave: summary, named scores, files."""

    lines: list[str]
    scores: dict[str, float]
    written: list[Path]


@dataclass(frozen=True)
class _Measured:
    """One file against its ground truth: the audit of its heads, if wanted, and the IoU of the configured box."""

    audit: Any
    iou: float


def _check_against_truth(
    survey: _Survey, selection: DatasetSelection, settings: Settings, modules: StageModules, directory: Path
) -> _Check:
    """Score the boxes that the configuration gives, and audit the heads."""
    from lab.heads.audit import draw_random_sets, summarize_audit

    truths = _read_truths(settings, modules)
    paths = [source.path for source in survey.sources if source.id in truths]
    if not paths:
        raise ValueError(
            f"Expected {settings.data.ground_truth} to hold boxes for the ids of the attention files, such as "
            f"{survey.ids[0]!r}, but got none of them. Choose the key of the ids with data.id_field."
        )
    plan, origin = _box_plan(settings, selection, modules)
    num_layers, num_heads = selection.counts.shape
    heads = plan.fixed_heads or selection.heads
    fixed = [[layer * num_heads + head for layer, head in heads]]
    head_sets = np.concatenate([np.array(fixed), draw_random_sets(heads, num_layers, num_heads)])
    ious: list[float] = []

    def audits() -> Iterator[Any]:
        for found in _read_each(paths, lambda path: _measure(path, truths, head_sets, plan), settings, "audit"):
            if isinstance(found, _Unusable):
                raise ValueError(found.reason)
            ious.append(found.iou)
            yield found.audit

    if not settings.data.audit:
        for _ in audits():
            pass
        return _Check(_describe_scores(ious, len(truths), origin), _scores(ious), [])
    audit = summarize_audit(
        audits(), frequency=selection.frequency, fixed=heads, skip_layers=settings.logic.skip_layers
    )
    lines = [*_describe_scores(ious, len(truths), origin), *_describe_audit(audit)]
    return _Check(lines, _scores(ious), _write_audit(directory, audit, survey, settings, modules))


def _read_truths(settings: Settings, modules: StageModules) -> dict[str, Box]:
    truths, problems = modules.evaluate_boxes.read_truths(str(settings.data.ground_truth), settings.data.id_field)
    for problem in problems:
        logger.warning("Ground truth left out: %s", problem)
    return {truth.id: truth.box_xyxy for truth in truths}


def _box_plan(settings: Settings, selection: DatasetSelection, modules: StageModules) -> tuple[Plan, str]:
    """How boxes are made for the scores: heads of the file, if there is one, else as the threshold's scope says."""
    logic = settings.logic
    if logic.heads_file is not None and Path(find_in_project(logic.heads_file)).is_file():
        return make_plan(settings, Steps(box=True), modules), f"heads of {logic.heads_file}"
    free = dataclasses.replace(settings, logic=dataclasses.replace(logic, heads_file=None))
    if logic.threshold.scope == "sample":
        return Plan(free, Steps(box=True), modules), "heads chosen for each image"
    return Plan(free, Steps(box=True), modules, fixed_heads=tuple(selection.heads)), "the heads found here"


def _measure(path: Path, truths: Mapping[str, Box], head_sets: np.ndarray, plan: Plan) -> _Measured:
    modules = plan.modules
    collected = load_attention(path)
    truth_xyxy = truths[collected.sample.id]
    smoothing, mask = plan.settings.logic.smoothing, plan.settings.logic.mask
    table = _score_table(collected, plan.settings, modules)
    choice = choose_for(collected, table, plan)
    box_xyxy = localize_choice(collected, choice, plan).box_xyxy
    audit = None
    if plan.settings.data.audit:
        audit = modules.evaluate_boxes.audit_sample(
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
    return _Measured(audit, 0.0 if box_xyxy is None else modules.bbox.box_iou(box_xyxy, truth_xyxy))


def _heads_per_image(table: HeadTable, plan: Plan) -> tuple[tuple[int, int], ...]:
    """The heads that the criteria choose for one sample alone; none where no head passes the filters."""
    try:
        indices: tuple[tuple[int, int], ...] = plan.modules.analyze.choose_heads(
            table, rules=selection_rules(plan.settings)
        ).indices
    except ValueError:
        return ()
    return indices


def _scores(ious: Sequence[float]) -> dict[str, float]:
    values = np.array(ious)
    rates = {f"acc@{threshold:g}": float((values >= threshold).mean()) for threshold in IOU_THRESHOLDS}
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


def _write_audit(
    directory: Path, audit: HeadAudit, survey: _Survey, settings: Settings, modules: StageModules
) -> list[Path]:
    """Write the audit, its figure, and the heads that the labels would choose: an upper bound to compare with."""
    from lab.heads.heads_file import heads_file_from_labels, write_heads_file

    csv_path, json_path, figure_path = (directory / f"head_audit.{ending}" for ending in ("csv", "json", "png"))
    heads_path = directory / "labelled_heads.yaml"
    written = [csv_path, json_path, heads_path]
    _write_csv(csv_path, audit.rows())
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
    compared = (audit.per_image, *audit.rivals)
    modules.viz.draw_head_audit(
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
