"""Short readable summaries of what a stage found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from command_line.tables import format_table
from lab.records import CollectedAttention, HeadChoice, HeadScore, Localization

RANKED_HEADS_SHOWN = 10
ANSWER_LENGTH = 400
SOURCES = {"automatic": "per image", "manual": "manual", "heads_file": "fixed"}


@dataclass(frozen=True)
class BatchCounts:
    """How a batch went.

    Attributes:
        done: Rows finished now.
        skipped: Rows finished by earlier runs.
        failed: Rows without a result.
        seconds: Time that the rows of this run took, without loading the model.
        sources: Number of rows by where their heads came from.
    """

    done: int
    skipped: int
    failed: int
    seconds: float
    sources: Mapping[str, int] = field(default_factory=dict)


def describe_sample(collected: CollectedAttention) -> list[str]:
    """Say what was asked of which image, what the model answered if it did, and how much attention is there."""
    sample, (width, height) = collected.sample, collected.image_size_wh
    size = f"{collected.num_layers} layers x {collected.num_heads} heads x {collected.grid.num_cells} image tokens"
    answer = collected.meta.get("generated_text")
    return [
        f"query   {sample.query!r} in {sample.image_file or '(unknown image)'} ({width} x {height} px)",
        *([] if answer is None else [f"answer  {str(answer)[:ANSWER_LENGTH]!r}"]),
        f"attn    {size}",
    ]


def describe_choice(choice: HeadChoice) -> list[str]:
    """Name the chosen heads, where they came from, and what did not go the plain way."""
    names = ", ".join(f"{score.name} (entropy {score.spatial_entropy:.3g})" for score in choice.heads)
    return [f"heads   {names}: {SOURCES[choice.source]}", *(f"note    {note}" for note in choice.notes)]


def describe_ranking(ranked: Sequence[HeadScore]) -> list[str]:
    """Give the best heads as a table."""
    rows = [
        {
            "rank": str(rank),
            "head": score.name,
            "attention sum": f"{score.attn_sum:.4f}",
            "entropy": f"{score.spatial_entropy:.4f}",
            "components": str(score.num_components),
        }
        for rank, score in enumerate(ranked[:RANKED_HEADS_SHOWN], start=1)
    ]
    rest = len(ranked) - len(rows)
    return [*format_table(rows), *([f"and {rest} more"] if rest else [])]


def describe_box(localization: Localization) -> str:
    """Say where the box is, in pixels of the original image."""
    if localization.box_xyxy is None:
        return "box     none: the combined map is flat"
    x0, y0, x1, y1 = localization.box_xyxy
    return f"box     x {x0:.1f} to {x1:.1f}, y {y0:.1f} to {y1:.1f} ({x1 - x0:.1f} x {y1 - y0:.1f} px)"


def describe_files(paths: Iterable[Path]) -> list[str]:
    """List what was written."""
    return [f"{'files' if number == 0 else '':<7} {path}" for number, path in enumerate(paths)]


def describe_batch(counts: BatchCounts, directory: Path, failures_file: Path) -> list[str]:
    """Say how many rows are done, skipped and failed, how fast, and where the results are."""
    rate = f" in {counts.seconds:.1f} s ({counts.done / max(counts.seconds, 1e-9):.2f} rows/s)" if counts.done else ""
    lines = [f"rows    {counts.done} done now{rate}, {counts.skipped} done before, {counts.failed} failed"]
    if counts.sources:
        lines.append("heads   " + ", ".join(f"{SOURCES[name]} {count}" for name, count in counts.sources.items()))
    if counts.failed:
        lines.append(f"failed  reasons in {failures_file}")
    return [*lines, f"files   {directory}"]
