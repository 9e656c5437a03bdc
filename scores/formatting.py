"""Reports as text for a terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from lab.statistics.bootstrap import Interval
from scores.evaluation import Rules, SampleScore, Summary
from scores.report import EvaluationReport

NAMED = 5
"""So many offending rows or files are named in a message; the rest is counted."""


def format_report(report: EvaluationReport) -> str:
    """The scores for a terminal, with the sentence that says how they were counted."""
    lines = _plain_table(table_rows(report, digits=4), left=1)
    if report.masks is not None:
        lines += ["", *_mask_lines(report)]
    if report.sets is not None:
        shown = ", ".join(f"{key} {_share(value)}" for key, value in report.sets.items() if key != "num_rows")
        lines += ["", f"{report.sets['num_rows']} rows, those with several or no targets among them: {shown}"]
    if report.comparison is not None:
        lines += ["", *_comparison_lines(report)]
    return "\n".join([*lines, "", _format_counts(report), report.how, *(f"Boxes {text}." for text in report.reading)])


def table_rows(report: EvaluationReport, digits: int = 3) -> list[list[str]]:
    """The table of scores: a header, all rows, groups, the ceiling, and baselines."""
    header = ["", "rows", "mean IoU", "median IoU", *report.rules.names, "mAcc", "centre"]
    with_pointing = report.overall.pointing_accuracy is not None
    summaries = {"all": report.overall, **report.groups}
    if report.ceiling is not None:
        summaries["best whole cells (the grid's ceiling)"] = report.ceiling
    summaries.update(report.baselines)
    rows = [_summary_cells(name, summary, report.rules, digits, with_pointing) for name, summary in summaries.items()]
    return [header + (["pointing"] if with_pointing else []), *rows]


def format_markdown(report: EvaluationReport) -> str:
    """The table for a README or a notebook."""
    header, *rows = table_rows(report)
    lines = [_pipes(header), "|---" + "|---:" * (len(header) - 1) + "|", *map(_pipes, rows)]
    return "\n".join([*lines, "", report.how, ""])


def format_latex(report: EvaluationReport) -> str:
    """The table for a paper; needs the package booktabs."""
    header, *rows = table_rows(report)
    body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
            " & ".join(map(_latex, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            f"% {report.how}",
            "",
        ]
    )


def format_csv(report: EvaluationReport) -> str:
    """The table as CSV, each interval in two columns of its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    summaries = {"all": report.overall, **report.groups, **report.baselines}
    if report.ceiling is not None:
        summaries["ceiling"] = report.ceiling
    names = list(_means(report.overall, report.rules))
    ends = [column for name in names for column in (name, f"{name} low", f"{name} high")]
    writer.writerow(["rows of", "rows", "objects", "pictures", "median IoU", *ends])
    for title, summary in summaries.items():
        cells = [title, summary.num_rows, summary.num_refs, summary.num_pictures, summary.median_iou]
        means = _means(summary, report.rules)
        for name in names:
            interval = summary.intervals.get(name)
            told = interval is not None and interval.method != "none"
            cells += [
                means.get(name, ""),
                *((interval.low, interval.high) if interval is not None and told else ("", "")),
            ]
        writer.writerow(cells)
    return text.getvalue()


def format_samples(samples: Sequence[SampleScore]) -> str:
    """One line of CSV for each row."""
    edges = ("x0", "y0", "x1", "y1")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "line", "group", "status", "iou", *(f"truth_{e}" for e in edges), *(f"predicted_{e}" for e in edges)]
    )
    for sample in samples:
        predicted = sample.predicted_xyxy or ("",) * 4
        writer.writerow(
            [sample.id, sample.line_number, sample.group, sample.status, sample.iou, *sample.truth_xyxy, *predicted]
        )
    return text.getvalue()


def format_problems(title: str, problems: Sequence[str]) -> str:
    """The first problems by name, and how many more there are."""
    lines = [f"{len(problems)} {title}:", *(f"  {problem}" for problem in problems[:NAMED])]
    return "\n".join(lines if len(problems) <= NAMED else [*lines, f"  and {len(problems) - NAMED} more"])


def _means(summary: Summary, rules: Rules) -> dict[str, float]:
    means = {"mean IoU": summary.mean_iou, **dict(zip(rules.names, summary.success_rates))}
    means.update({"mAcc": summary.mean_accuracy, "centre": summary.centre_accuracy})
    return means if summary.pointing_accuracy is None else {**means, "pointing": summary.pointing_accuracy}


def _summary_cells(name: str, summary: Summary, rules: Rules, digits: int, with_pointing: bool) -> list[str]:
    means = _means(summary, rules)
    shown = {key: _with_ends(value, summary.intervals.get(key), digits) for key, value in means.items()}
    first = shown.pop("mean IoU")
    if with_pointing:
        shown.setdefault("pointing", "-")
    return [name, str(summary.num_rows), first, f"{summary.median_iou:.{digits}f}", *shown.values()]


def _with_ends(value: float, interval: Interval | None, digits: int) -> str:
    if interval is None or interval.method == "none":
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{interval.low:.3f}, {interval.high:.3f}]"


def _plain_table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    ]


def _mask_lines(report: EvaluationReport) -> list[str]:
    masks = report.masks
    assert masks is not None, "only reports with masks have their lines"
    lines = [f"masks of {masks.num_rows} rows ({masks.num_missing} missing): {_pairs(masks.scores)}"]
    if masks.lisa is not None:
        lines.append(f"as LISA counts: {_pairs(masks.lisa)}")
    if masks.gres is not None:
        lines.append(f"as GRES counts: {_pairs(masks.gres)}")
    return lines


def _pairs(scores: dict[str, float] | dict[str, float | None]) -> str:
    return ", ".join(f"{name} {_share(value)}" for name, value in scores.items())


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _comparison_lines(report: EvaluationReport) -> list[str]:
    comparison = report.comparison
    assert comparison is not None, "only reports with a comparison have its lines"
    lines = [f"less {comparison.name}, on {comparison.num_rows} rows:"]
    for name, interval in comparison.differences.items():
        only = ""
        if name in comparison.better:
            only = f"; {comparison.better[name]} rows only here, {comparison.worse[name]} only there"
        ends = (
            ""
            if interval.method == "none" or not report.rules.resamples
            else f" [{interval.low:+.4f}, {interval.high:+.4f}]"
        )
        lines.append(f"  {name:10} {interval.estimate:+.4f}{ends}{only}")
    return lines


def _format_counts(report: EvaluationReport) -> str:
    return (
        f"{report.overall.num_rows} rows: {report.count('box')} with a box, {report.count('null')} null, "
        f"{report.count('missing')} missing, {report.count('unreadable')} unreadable; "
        "without a box the IoU is 0."
    )


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latex(cell: str) -> str:
    for mark in "&%_#$":
        cell = cell.replace(mark, f"\\{mark}")
    return cell
