"""``python -m lab.datasets convert`` and ``verify``: data sets in, rows out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from lab.datasets.box_reading import BOX_FORMATS
from lab.datasets.convert import ConversionOptions, convert, report_path
from lab.datasets.formats.base import Inputs
from lab.datasets.formats.registry import FORMATS
from lab.datasets.verify import verify


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 where rows were written or checked but some cannot be used, 2 where nothing was.
    """
    options = _parse(arguments)
    try:
        return int(options.run(options))
    except (ValueError, OSError, KeyError, TypeError) as error:
        detail = f"the key {error} is missing; check --format" if isinstance(error, KeyError) else str(error)
        print(f"lab.datasets: {' '.join(detail.split())}", file=sys.stderr)
        return 2


def _convert(options: argparse.Namespace) -> int:
    inputs = Inputs(options.input, options.instances, options.split, options.dataset)
    report = convert(
        inputs,
        options.output,
        ConversionOptions(
            options.format, tuple(options.images), options.box_format, not options.no_masks, options.allow_merged
        ),
    )
    print("\n".join([*report.lines(), f"files    {options.output}", f"         {report_path(options.output)}"]))
    return 0 if report.is_clean else 1


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.rows, box_format=options.box_format)
    print("\n".join(found.lines))
    for problem in found.problems:
        print(problem, file=sys.stderr)
    return 1 if found.problems else 0


def _parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.datasets", description="Data sets in, rows out.")
    commands = parser.add_subparsers(required=True, metavar="convert|verify")
    command = commands.add_parser("convert", help="turn a data set into rows of id, prompt, image_path and bbox_xyxy")
    command.add_argument("--format", default="auto", metavar="NAME", help=f"auto (default), {', '.join(FORMATS)}")
    command.add_argument("--input", type=Path, required=True, help="the file, or the directory of files")
    command.add_argument("--output", type=Path, required=True, help="JSON lines to write")
    command.add_argument("--images", type=Path, nargs="+", default=[], metavar="DIR", help="directories of pictures")
    command.add_argument("--instances", type=Path, help="COCO's instances.json, where it does not lie beside")
    command.add_argument("--split", help="only this split")
    command.add_argument("--dataset", default="", help="name of the data set, where the file does not say")
    command.add_argument("--no-masks", action="store_true", help="leave masks out, which need pycocotools")
    command.add_argument("--allow-merged", action="store_true", help="take a file in which two splits are merged")
    command.set_defaults(run=_convert)
    check = commands.add_parser("verify", help="check a file of rows before a model sees it")
    check.add_argument("rows", type=Path)
    check.set_defaults(run=_verify)
    for each in (command, check):
        each.add_argument("--box-format", default="auto", choices=BOX_FORMATS, help="how boxes are meant")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
