"""Draw a gallery of a batch's results, failures too: ``python -m examples.make_gallery --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluate_boxes import SampleScore, evaluate
from lab.datasets.box_reading import AUTO, BOX_FORMATS
from lab.datasets.rows import RowFields, read_rows
from lab.records import Sample
from viz import GalleryEntry, draw_gallery
from vlm.images import load_image

HIT_AT = 0.5
HOW = {
    "worst": "the lowest IoU first",
    "best": "the highest IoU first",
    "random": "drawn at random",
    "spread": "at even ranks from the best IoU to the worst",
}


def make_gallery(
    dataset_jsonl: str | Path,
    pred_root: str | Path,
    output: str | Path,
    *,
    select: str = "spread",
    count: int = 12,
    seed: int = 0,
    fields: RowFields | None = None,
    dpi: int = 120,
    box_format: str = AUTO,
) -> str:
    """Choose rows by how well they went, and draw them.

    Args:
        dataset_jsonl: Rows with id, prompt, image and ground truth.
        pred_root: Directory with `<id>_bbox.json`.
        output: Where to write, `.png`, `.pdf` or `.svg`.
        select: One of `HOW`.
        count: Number of pictures, or all rows if there are fewer.
        seed: Seed of `random`.
        fields: Under which keys a row holds what; None for the usual ones.
        dpi: Pixels per inch.
        box_format: How the rows' boxes are written, or `auto`.

    Returns:
        One line that says what was drawn.

    Raises:
        ValueError: If rows, predictions or images do not fit, or `select` or `count` is out of range.
    """
    fields = fields or RowFields()
    scores = evaluate(dataset_jsonl, pred_root, id_field=fields.id, box_format=box_format, resamples=0).samples
    samples = {sample.id: sample for sample in read_rows(dataset_jsonl, fields).samples}
    chosen = choose_scores(scores, select, count, seed)
    entries = [_entry(score, samples) for score in chosen]
    hits = float(np.mean([score.iou >= HIT_AT for score in scores]))
    title = f"{len(chosen)} of {len(scores)} rows: {HOW[select]}"
    seeded = f"seed {seed} · " if select == "random" else ""
    subtitle = f"{seeded}Acc@{HIT_AT:g} of all {len(scores)} rows {hits:.1%} · a miss has an IoU below {HIT_AT:g}"
    draw_gallery(output, entries, title=title, subtitle=subtitle, hit_at=HIT_AT, dpi=dpi)
    return f"{title}; written to {output}"


def choose_scores(scores: Sequence[SampleScore], select: str, count: int, seed: int = 0) -> list[SampleScore]:
    """Choose rows to show; rows with equal IoU keep the order of the file.

    Args:
        scores: All rows.
        select: `worst`, `best`, `random` or `spread`.
        count: How many; all if there are fewer.
        seed: Seed of `random`.

    Returns:
        The rows, in the order to show them.

    Raises:
        ValueError: If `select` or `count` is out of range.
    """
    if select not in HOW:
        raise ValueError(f"Expected --select to be one of {', '.join(HOW)}, but got {select!r}.")
    if count < 1:
        raise ValueError(f"Expected --count to be at least 1, but got {count}.")
    count = min(count, len(scores))
    if select == "random":
        return [scores[index] for index in np.sort(np.random.default_rng(seed).permutation(len(scores))[:count])]
    ranked = sorted(scores, key=lambda score: score.iou if select == "worst" else -score.iou)
    if select == "spread":
        return [ranked[round(place)] for place in np.linspace(0, len(ranked) - 1, count)]
    return ranked[:count]


def _entry(score: SampleScore, samples: dict[str, Sample]) -> GalleryEntry:
    """Picture, query and boxes of a row."""
    if score.id not in samples:
        raise ValueError(
            f"Expected row {score.line_number} to have a prompt and an image that exists, but got none for "
            f"{score.id[:60]!r}. Check the row, or --prompt-field and --image-field."
        )
    sample = samples[score.id]
    return GalleryEntry(load_image(sample.image_file), sample.query, score.predicted_xyxy, score.truth_xyxy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parse_arguments(arguments)
    try:
        line = make_gallery(
            options.dataset_jsonl,
            options.pred_root,
            options.output,
            select=options.select,
            count=options.count,
            seed=options.seed,
            fields=RowFields(options.id_field, options.prompt_field, options.image_field),
            dpi=options.dpi,
            box_format=options.box_format,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{line}\n")
    return 0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.make_gallery", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--dataset-jsonl", required=True, help="rows with id, prompt, image_path and ground truth")
    parser.add_argument("--pred-root", required=True, help="the model's output directory, with <id>_bbox.json")
    parser.add_argument("--output", required=True, help="where to write: .png, .pdf or .svg")
    how = "; ".join(f"{name}: {meaning}" for name, meaning in HOW.items())
    parser.add_argument("--select", choices=list(HOW), default="spread", help=f"{how} (default: spread)")
    parser.add_argument("--count", type=int, default=12, help="number of pictures (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random (default: 0)")
    parser.add_argument("--box-format", choices=BOX_FORMATS, default=AUTO, help="how the rows' boxes are written")
    parser.add_argument("--dpi", type=int, default=120, help="pixels per inch (default: 120)")
    for name, key in (("id", "id"), ("prompt", "prompt"), ("image", "image_path")):
        parser.add_argument(f"--{name}-field", default=key, help=f"key of the rows (default: {key})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
