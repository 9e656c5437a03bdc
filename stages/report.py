"""Stage `report`: a directory of results -> one HTML file to look at it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bbox import localize_each, smooth_maps
from command_line.quoting import quote_value
from command_line.results import StageResult
from foreign_files.messages import shorten_reason
from lab.boxes import box_ious, cell_coverage
from lab.config.settings import Settings, model_directory_name
from lab.heads.head_scores import HeadTable
from lab.heads.ranking import elbow_threshold
from lab.records import CollectedAttention, HeadChoice
from lab.storage.attention_files import load_attention, read_image_size
from lab.storage.files import atomic_write
from report.choosing import choose_samples
from report.page import build
from report.records import BoxRules, OtherRow, OtherRun, ReportRun, ReportSample
from stages.choosing import fractional_edges, localize_choice, rank_sample, score_sample, see
from stages.plan import selection_rules
from stages.report_dataset import compare_bars, read_dataset
from stages.report_rows import ReportRow, read_other_rows, read_report_rows, settings_of_run, with_true_boxes
from stages.summaries import SOURCES, describe_files
from stages.survey import attention_dirs

RANKED_HEADS = 8
SLACK = 0.1
"""Pixels by which a stored box may differ from what its heads and rules give now before the page says so."""


def run_report(settings: Settings) -> StageResult:
    """Write the report of a directory of results.

    Args:
        settings: The whole configuration.

    Returns:
        What was written.

    Raises:
        ValueError: There are no results, or a file cannot be read.
    """
    directories = attention_dirs(settings)
    if len(directories) > 1:
        raise ValueError(
            f"Expected data.batch_attention_dir to be one directory for a report, but got {len(directories)}. "
            "Report one, and name the other as report.against."
        )
    return StageResult(tuple(write_report(Path(directories[0]), settings)))


def with_report(result: StageResult, settings: Settings) -> StageResult:
    """Add the report to what a batch or its analysis found, where `data.report` asks for it."""
    if not settings.data.report:
        return result
    directory = settings.result_dir if settings.stage == "batch" else Path(attention_dirs(settings)[0])
    return dataclasses.replace(result, lines=(*result.lines, *write_report(directory, settings)))


def write_report(directory: Path, settings: Settings) -> list[str]:
    """Choose the pictures, make the page, write it beside the results, and say how to open it."""
    found, failures = read_report_rows(directory)
    rows = with_true_boxes(found, settings)
    chosen = choose_samples(
        [row.iou for row in rows], settings.report.select, settings.report.max_samples, settings.report.seed
    )
    run_settings = settings_of_run(directory, settings)
    shown = _survey([rows[place] for place in chosen], run_settings)
    run = _describe_run(directory, rows, shown, failures, run_settings)
    if settings.report.against is not None:
        others = with_true_boxes(read_other_rows(Path(settings.report.against)), settings)
        against = OtherRun(settings.report.against, [_other(row) for row in others], compare_bars(rows, others))
        run = dataclasses.replace(run, against=against)
    path = Path(settings.data.analysis_dir or directory) / "report.html"
    page = build(run, _read_samples(shown.rows, run, run_settings))
    atomic_write(path, page.encode("utf-8"))
    size = f"{len(page.encode('utf-8')) / 1e6:.1f} MB"
    return [f"report  {len(shown.rows)} of {len(rows)} rows, {size}; open it in a browser", *describe_files([path])]


def _other(row: ReportRow) -> OtherRow:
    return OtherRow(row.id, row.box_xyxy, row.iou, " ".join(f"L{layer}H{head}" for layer, head in row.heads))


def _describe_run(
    directory: Path,
    rows: Sequence[ReportRow],
    shown: _Shown,
    failures: Sequence[tuple[str, str]],
    settings: Settings,
) -> ReportRun:
    """What all pictures share; the mean sums are those of the pictures that are shown."""
    analysis = Path(settings.data.analysis_dir or directory)
    dataset, fixed, wanted = read_dataset(analysis, rows, shown.mean_sums, settings)
    by_iou = any(row.iou is not None for row in rows)
    how = {"spread": "spread evenly over their IoUs" if by_iou else "spread evenly over the run"}
    return ReportRun(
        title=f"Localization heads of {model_directory_name(shown.model_name)}",
        model_name=shown.model_name,
        about=[
            f"{len(shown.rows)} of {len(rows)} rows of {directory}: "
            f"{how.get(settings.report.select, settings.report.select)}.",
        ],
        command=_command(directory, settings),
        num_layers=shown.mean_sums.shape[0],
        num_heads=shown.mean_sums.shape[1],
        num_cells=shown.num_cells,
        rules=_box_rules(settings),
        top_k=settings.logic.top_k,
        fixed=fixed,
        wanted=wanted,
        dataset=dataset,
        num_samples=len(shown.rows),
        seed=settings.report.seed,
        empty_layers=shown.empty_layers,
        failures=[*failures, *shown.failures],
    )


@dataclass(frozen=True)
class _Shown:
    """The rows that can be shown, and what their attention files have in common.

    Attributes:
        rows: The rows.
        failures: Id and reason of each chosen row whose attention or picture cannot be read.
        mean_sums: `[layers, heads]` mean attention sums.
        num_cells: Cells of the largest grid.
        model_name: The model.
        empty_layers: Layers without a map.
    """

    rows: list[ReportRow]
    failures: list[tuple[str, str]]
    mean_sums: np.ndarray
    num_cells: int
    model_name: str
    empty_layers: tuple[int, ...]


def _survey(chosen: Sequence[ReportRow], settings: Settings) -> _Shown:
    """Read the chosen rows once; a row that cannot be read costs itself only."""
    rows, failures, sums, cells = [], [], [], 0
    models: set[str] = set()
    empty: set[int] = set()
    for row in chosen:
        try:
            collected = _load(row, settings)
        except (OSError, ValueError) as error:
            failures.append((row.id, shorten_reason(error)))
            continue
        rows.append(row)
        sums.append(score_sample(collected, settings).attn_sum)
        cells = max(cells, collected.grid.num_cells)
        models.add(str(collected.meta.get("model_name")))
        empty.update(collected.layers_without_map)
    if not rows:
        raise ValueError(f"Expected at least one row to show, but none can be read: {failures[0][1]}")
    if len({array.shape for array in sums}) > 1 or len(models) > 1:
        raise ValueError(
            f"Expected the attention files of a report to be of one model, but got {', '.join(sorted(models))}. "
            "Keep each model's results in a directory of its own."
        )
    return _Shown(rows, failures, np.mean(sums, axis=0), cells, models.pop(), tuple(sorted(empty)))


def _load(row: ReportRow, settings: Settings) -> CollectedAttention:
    """The attention of a row, whose picture must be there, too."""
    if row.path is None:
        raise ValueError(f"Expected the row {row.id!r} of a report to have an attention file, but it has none.")
    collected = load_attention(row.path)
    picture = collected.sample.image_file
    size_wh = read_image_size(picture)
    if size_wh != collected.image_size_wh:
        raise ValueError(
            f"Expected {picture} to be the picture of {collected.image_size_wh} pixels that the attention was "
            f"collected on, but got one of {size_wh}. Put it back."
        )
    return see(collected, settings)


def _box_rules(settings: Settings) -> BoxRules:
    smoothing, mask = settings.logic.smoothing, settings.logic.mask
    return BoxRules(
        sigma=smoothing.sigma,
        truncate=smoothing.truncate,
        threshold=mask.relative_threshold,
        region=mask.region,
        edges=mask.edges,
        edge_most=mask.edge_most,
        edge_power=mask.edge_power,
    )


def _command(directory: Path, settings: Settings) -> str:
    parts = ["python pipeline.py stage=report", f"data.batch_attention_dir={quote_value(str(directory))}"]
    if settings.data.ground_truth is not None:
        parts.append(f"data.ground_truth={quote_value(settings.data.ground_truth)}")
    report = settings.report
    return " ".join([*parts, f"report.select={report.select}", f"report.seed={report.seed}"])


def _read_samples(shown: Sequence[ReportRow], run: ReportRun, settings: Settings) -> Iterator[ReportSample]:
    for row in shown:
        collected = _load(row, settings)
        table = score_sample(collected, settings)
        ranked = [(score.layer, score.head) for score in rank_sample(table, settings)]
        maps = collected.attention.reshape(-1, *collected.grid.shape)
        scores = {
            "sum": table.attn_sum,
            "entropy": table.spatial_entropy,
            **_against_truth(collected, maps, row, settings),
        }
        if run.dataset.frequency is not None and row.source == "heads_file":
            ranked = [*run.fixed, *ranked]
        yield ReportSample(
            collected=collected,
            file=str(row.path),
            heads=row.heads,
            source=SOURCES.get(row.source, row.source),
            ranked=list(dict.fromkeys([*row.heads, *ranked]))[: max(RANKED_HEADS, len(row.heads))],
            filtered=_filter_codes(table, run, settings),
            scores=scores,
            box_xyxy=row.box_xyxy,
            truth_xyxy=row.truth_xyxy,
            confidence=row.confidence,
            last_token=collected.meta.get("last_prompt_token"),
            notes=[*row.notes, *_stale_box(collected, table, row, settings)],
        )


def _against_truth(
    collected: CollectedAttention, maps: np.ndarray, row: ReportRow, settings: Settings
) -> dict[str, np.ndarray]:
    """IoU of each head's own box, and its enrichment in the true box; nothing without a true box."""
    shape = collected.attention.shape[:2]
    if row.truth_xyxy is None:
        return {"iou": np.full(shape, np.nan), "enrichment": np.full(shape, np.nan)}
    smoothing, mask = settings.logic.smoothing, settings.logic.mask
    _, boxes_xyxy = localize_each(
        smooth_maps(maps, sigma=smoothing.sigma, truncate=smoothing.truncate),
        collected.grid,
        collected.image_size_wh,
        region=mask.region,
        relative_threshold=mask.relative_threshold,
        edges=fractional_edges(mask),
    )
    width, height = collected.image_size_wh
    inside = maps * cell_coverage((0, 0, width, height), collected.grid)
    covered, visible = (
        cell_coverage(row.truth_xyxy, collected.grid),
        cell_coverage((0, 0, width, height), collected.grid),
    )
    total = inside.sum(axis=(1, 2))
    share = np.divide((maps * covered).sum(axis=(1, 2)), total, out=np.full(len(maps), np.nan), where=total > 0)
    area_share = covered.sum() / visible.sum()
    enrichment = share / area_share if area_share > 0 else np.full(len(maps), np.nan)
    return {
        "iou": box_ious(boxes_xyxy, np.array(row.truth_xyxy)).reshape(shape),
        "enrichment": enrichment.reshape(shape),
    }


def _filter_codes(table: HeadTable, run: ReportRun, settings: Settings) -> np.ndarray:
    """Why each head was not open to choice, `[layers, heads]`, as places in `report.records.FILTER_REASONS`."""
    rules = selection_rules(settings)
    threshold = rules.threshold_value
    if threshold is None and rules.threshold_scope == "dataset":
        threshold = run.dataset.threshold
    if threshold is None:
        threshold = elbow_threshold(table.attn_sum)
    layers = np.arange(run.num_layers)[:, None] + np.zeros((1, run.num_heads), dtype=int)
    low, bottom = table.attn_sum < threshold, table.bottom_row_focus & rules.bottom_row_filter
    empty = np.isin(layers, run.empty_layers)
    return np.select(
        [empty, layers < rules.skip_layers, low, bottom, ~np.isfinite(table.spatial_entropy)], [5, 1, 2, 3, 4], 0
    )


def _stale_box(collected: CollectedAttention, table: HeadTable, row: ReportRow, settings: Settings) -> list[str]:
    """A sentence where the stored box is not what the stored attention gives by the run's heads and rules."""
    choice = HeadChoice(tuple(table.score(layer, head) for layer, head in row.heads), "manual")
    box_xyxy = localize_choice(collected, choice, settings).box_xyxy
    if box_xyxy is None or row.box_xyxy is None:
        is_same = box_xyxy is row.box_xyxy
    else:
        is_same = bool(np.allclose(row.box_xyxy, box_xyxy, atol=SLACK, rtol=0))
    if is_same:
        return []
    return ["The stored box is not what the stored attention gives with the run's heads and rules: see its run.json."]
