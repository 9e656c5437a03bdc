"""Stored attention -> how good boxes of whole cells, of fractional edges and with contrast are.

    python -m benchmarks.finer_boxes --attention outputs/results/<model> --dataset-jsonl data.jsonl --heads heads.yaml \
        --sigma 0 --region heaviest

Choose on validation rows, report test rows. No model is loaded.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from bbox import REGIONS, localize_each, smooth_maps
from finer.contrast import contrast_with_siblings
from finer.edges import FractionalEdges
from foreign_files.bounded_json import read_jsonl
from lab.boxes import box_iou, xywh_to_xyxy
from lab.heads.heads_file import read_heads_file
from lab.records import Grid
from lab.storage.attention_files import load_attention
from lab.storage.paths import find_attention_file, safe_name

MOST = (0.5, 0.6, 0.7, 0.8, 0.9)
POWERS = (0.125, 0.25, 0.35, 0.5, 1.0)
THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
SHARES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Row:
    """One row with ground truth.

    Attributes:
        picture: Its image file, which its siblings share.
        combined_map: `[rows, cols]`, the smoothed sum of the heads' maps.
        grid: Where its cells lie.
        image_size_wh: Size of the picture.
        truth_xyxy: Where the object is.
    """

    picture: str
    combined_map: np.ndarray
    grid: Grid
    image_size_wh: tuple[int, int]
    truth_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Variant:
    """One way to make boxes.

    Attributes:
        name: For the table.
        threshold: Times the mean.
        edges: How edges end; None for whole cells.
        share: Of the siblings' mean that is taken off.
    """

    name: str
    threshold: float = 1.0
    edges: Optional[FractionalEdges] = None
    share: float = 0.0


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Read the rows, and print a table with a line for each variant."""
    options = _parser().parse_args(arguments)
    rows = list(read_rows(options))
    print(f"{len(rows)} rows; grid {rows[0].grid.rows} x {rows[0].grid.cols}\n")
    print("| boxes | mean IoU | Acc@0.5 | Acc@0.75 |\n|---|---|---|---|")
    for variant in variants(options.sweep):
        ious = measure(rows, variant, options.region)
        print(f"| {variant.name} | {ious.mean():.3f} | {(ious >= 0.5).mean():.3f} | {(ious >= 0.75).mean():.3f} |")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--attention", required=True, help="directory of attention files")
    add("--dataset-jsonl", required=True, help="rows with id, image_path and bbox [x, y, w, h]")
    add("--heads", required=True, help="heads file, whose heads are used")
    add("--top-k", type=int, default=3, help="how many of them (default: 3)")
    add("--sigma", type=float, default=1.0, help="smoothing in cells (default: 1)")
    add("--region", default="largest", choices=REGIONS, help="region of the mask (default: largest)")
    add("--sweep", action="store_true", help="other parameters too: on validation rows only")
    return parser


def read_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows whose attention is stored, with the map of the heads that the options name."""
    layers, heads = (list(index) for index in zip(*read_heads_file(options.heads).first(options.top_k)))
    for line in read_jsonl(options.dataset_jsonl):
        row = line.row
        if row is None:
            raise ValueError(f"Expected line {line.number} of {options.dataset_jsonl} to be an object: {line.error}")
        path = find_attention_file(Path(options.attention) / f"{safe_name(str(row['id']))}.pkl.gz")
        collected = load_attention(path)
        maps = collected.attention[layers, heads].reshape(-1, *collected.grid.shape)
        combined_map = smooth_maps(maps, sigma=options.sigma).sum(axis=0)
        truth_xyxy = xywh_to_xyxy(row["bbox"])
        yield Row(row["image_path"], combined_map, collected.grid, collected.image_size_wh, truth_xyxy)


def variants(sweep: bool) -> list[Variant]:
    """The ways to compare: the rules with their defaults, or all parameters of the sweep."""
    plain = [Variant("whole cells"), Variant("fractional edges", edges=FractionalEdges())]
    plain += [Variant(f"whole cells, contrast {share:g}", share=share) for share in SHARES]
    if not sweep:
        return plain
    for threshold in THRESHOLDS:
        plain.append(Variant(f"whole cells, {threshold:g} x mean", threshold))
        plain.append(Variant(f"fractional edges, {threshold:g} x mean", threshold, FractionalEdges()))
    for most, power in itertools.product(MOST, POWERS):
        plain.append(Variant(f"most {most:g}, power {power:g}", edges=FractionalEdges(most, power)))
    return plain


def measure(rows: Sequence[Row], variant: Variant, region: str) -> np.ndarray:
    """IoU of each row's box with the truth, `[rows]`; 0 where there is no box."""
    of_picture: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        of_picture.setdefault(row.picture, []).append(number)
    ious = np.zeros(len(rows))
    for numbers in of_picture.values():
        maps = np.stack([rows[number].combined_map for number in numbers])
        first = rows[numbers[0]]
        _, boxes_xyxy = localize_each(
            contrast_with_siblings(maps, variant.share) if variant.share else maps,
            first.grid,
            first.image_size_wh,
            region=region,
            relative_threshold=variant.threshold,
            edges=variant.edges,
        )
        ious[numbers] = [box_iou(box, rows[number].truth_xyxy) for box, number in zip(boxes_xyxy, numbers)]
    return ious


if __name__ == "__main__":
    main()
