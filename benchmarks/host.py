"""Benchmarks without a model: analysis, batch_analyze, growth of memory, start-up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyze import choose_heads, rank_heads, score_heads
from benchmarks.baseline import PlainScore, analyze_plain, read_plain
from benchmarks.context import Context
from benchmarks.inputs import GRID_7B, make_attention, write_attention_files, write_predictions
from benchmarks.measure import Row, run_child, run_python, time_in_turn
from lab.heads.head_scores import HeadTable, SelectionRules
from lab.records import HeadScore
from lab.storage.attention_files import load_attention

TOLERANCE = 1e-5
# So many calls of the tool take about as long as one of the baseline, and are timed together.
CALLS = 20
FILES_OF_A_GOAL = 1000
# Of a batch that the baseline takes minutes for, it gets this many files.
PLAIN_FILES = 5


# Analysis -------------------------------------------------------------------------------------------------------------


def measure_analysis(context: Context) -> Iterator[Row]:
    """Scoring and ranking of all heads of one file."""
    repeats = 1 if context.quick else 5
    for name, smoothness in (("blobs", 1.0), ("specks", 0.0)):
        attention = make_attention(0, smoothness=smoothness)
        plain, here = time_in_turn(
            lambda a=attention: analyze_plain(a, GRID_7B),
            lambda a=attention: repeat(lambda: analyze_here(a), CALLS),
            repeats=repeats,
        )
        table, ranked = here.result
        yield Row(
            "analysis",
            f"one file [32, 32, 1, 576] of {name}",
            1000 * here.median / CALLS,
            "ms",
            1000 * plain.median,
            difference=analysis_difference(table, ranked, *plain.result),
            tolerance=TOLERANCE,
            note=f"{table.num_components.mean():.1f} components a map",
            details={"cpu_ms": 1000 * here.cpu_median / CALLS, "plain_cpu_ms": 1000 * plain.cpu_median},
        )


def analyze_here(attention: np.ndarray, grid_shape: tuple[int, int] = GRID_7B) -> tuple[HeadTable, list[HeadScore]]:
    """Score all heads, rank those that pass, and choose three."""
    table = score_heads(attention, grid_shape)
    ranked = rank_heads(table)
    choose_heads(table, rules=SelectionRules(), ranked=ranked)
    return table, ranked


def repeat(function: Callable[[], Any], times: int) -> Any:
    """Call a function that takes too short to be timed; returns the last result."""
    for _ in range(times - 1):
        function()
    return function()


def analysis_difference(
    table: HeadTable, ranked: Sequence[HeadScore], scores: Sequence[PlainScore], plain_ranked: Sequence[PlainScore]
) -> float:
    """Largest difference of sums and entropies; infinite where the components, filters or ranks differ."""
    shape = table.attn_sum.shape
    sums, entropies, bottom, components = (
        np.array([getattr(score, name) for score in scores]).reshape(shape)
        for name in ("attn_sum", "entropy", "bottom_row_focus", "num_components")
    )
    names = [(score.layer, score.head) for score in ranked]
    same = (
        np.array_equal(table.num_components, components)
        and np.array_equal(table.bottom_row_focus, bottom)
        and names == [(score.layer, score.head) for score in plain_ranked]
    )
    if not same:
        return float("inf")
    seen = components > 0
    difference = np.abs(table.spatial_entropy[seen] - entropies[seen]).max(initial=0.0)
    return float(max(difference, np.abs(table.attn_sum - sums).max()))


# batch_analyze --------------------------------------------------------------------------------------------------------


def measure_batch_analyze(context: Context) -> Iterator[Row]:
    """The stage `batch_analyze` over a directory, and how much of its work is reading."""
    count = context.size(quick=3, usual=100, full=FILES_OF_A_GOAL)
    with tempfile.TemporaryDirectory(dir=context.directory) as name:
        paths = write_attention_files(Path(name), count)
        plain, here = time_in_turn(
            lambda: [analyze_plain(read_plain(path), GRID_7B) for path in paths[:PLAIN_FILES]],
            lambda: run_child("batch_analyze", threads=context.threads, directory=name),
            repeats=1,
            warm_up=False,
        )
        few = paths[:20]
        reading, working = time_in_turn(
            lambda: [load_attention(path) for path in few],
            lambda: [analyze_here(load_attention(path).attention) for path in few],
            repeats=1 if context.quick else 3,
        )
        differences = [analysis_difference(*found, *expected) for found, expected in zip(working.result, plain.result)]
    report = here.result
    yield Row(
        "batch_analyze",
        f"{FILES_OF_A_GOAL:,} files (measured with {count:,})",
        report["seconds"] * FILES_OF_A_GOAL / count,
        "s",
        plain.median * FILES_OF_A_GOAL / len(plain.result),
        difference=max(differences),
        tolerance=TOLERANCE,
        note=f"{reading.median / working.median:.0%} of the work is reading and inflating; "
        f"peak {report['peak_mb']:,.0f} MB, {report['added_mb']:,.0f} MB above the imports",
        details=report,
    )


# Growth ---------------------------------------------------------------------------------------------------------------


def measure_growth(context: Context) -> Iterator[Row]:
    """Peak memory of a batch of more and more rows, attention of the size of LLaVA-1.5-7B's from a pretended model."""
    sizes = (20, 40) if context.quick else (100, 1_000, 10_000) if context.full else (100, 300, 1_000)
    first_mb = None
    for rows in sizes:
        report = run_child("batch", threads=context.threads, rows=rows)
        first_mb = report["peak_mb"] if first_mb is None else first_mb
        yield Row(
            "growth",
            f"batch of {rows:,} rows, boxes only, peak memory",
            report["peak_mb"],
            "MB",
            note=f"{report['peak_mb'] - first_mb:+,.0f} MB against {sizes[0]} rows; "
            f"{rows / report['seconds']:,.0f} rows/s on the host alone",
            details={"rows": rows, **report},
        )


# Start-up -------------------------------------------------------------------------------------------------------------


def measure_startup(context: Context) -> Iterator[Row]:
    """Wall time of the two commands that must answer at once, beside the interpreter's own start."""
    count = context.size(quick=50, usual=10_000, full=10_000)
    with tempfile.TemporaryDirectory(dir=context.directory) as name:
        dataset, predictions = write_predictions(Path(name), count)
        commands = {
            "pipeline.py --help": ("pipeline.py", "--help"),
            f"evaluate_boxes.py on {count:,} predictions": (
                "evaluate_boxes.py",
                *("--dataset-jsonl", str(dataset)),
                *("--pred-root", str(predictions)),
            ),
        }
        started = [lambda a=arguments: run_python(*a) for arguments in [("-c", "pass"), *commands.values()]]
        interpreter, *timings = time_in_turn(*started, repeats=1 if context.quick else 5)
        for (what, arguments), timing in zip(commands.items(), timings):
            torch_too = " and torch is imported" if imports_torch(arguments) else ", torch is not imported"
            yield Row(
                "startup",
                what,
                1000 * timing.median,
                "ms",
                note=f"{timing.median / interpreter.median:.1f} times the interpreter's own start "
                f"({1000 * interpreter.median:.0f} ms){torch_too}",
                details={"interpreter_ms": 1000 * interpreter.median},
            )


def imports_torch(arguments: Sequence[str]) -> bool:
    """Whether a command imports torch."""
    imported = run_python("-X", "importtime", *arguments).stderr
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in imported.splitlines())


def time_call(function: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
