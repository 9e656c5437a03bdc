"""Entry point: runs the benchmarks, prints one table, writes JSON.

    python -m benchmarks.run [--only analysis,startup] [--quick | --full] [--json out.json]

Every ratio is measured in this one run, the baseline and the tool in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

if not __package__:  # started as `python benchmarks/run.py`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import collecting, host
from benchmarks.context import Context, Skipped
from benchmarks.measure import Row, describe_machine, format_machine, format_rows

DESCRIPTION = "Measure the tool against a baseline written in the plain way (benchmarks/baseline.py)."
BUSY_LOAD = 0.5  # other processes for each core, above which the numbers are not to be trusted
BENCHMARKS: dict[str, Callable[[Context], Iterator[Row]]] = {
    "picturebook": collecting.measure_picturebook,
    "toy": collecting.measure_toy,
    "llava7b": collecting.measure_7b,
    "memory": collecting.measure_memory,
    "analysis": host.measure_analysis,
    "batch_analyze": host.measure_batch_analyze,
    "growth": host.measure_growth,
    "startup": host.measure_startup,
    "overlap": collecting.measure_overlap,
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        Exit status: 0, or 1 where the tool's results are not equal to the baseline's.
    """
    options = parse_arguments(arguments)
    set_threads(options.threads)
    machine = describe_machine()
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        context = Context(Path(directory), options.quick, options.full, options.threads)
        for name in options.only:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                rows += BENCHMARKS[name](context)
            except Skipped as reason:
                skipped[name] = str(reason)
    print_report(rows, skipped, machine)
    if options.json is not None:
        write_json(options.json, rows, skipped, machine)
    return int(not all(row.is_equal for row in rows))


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=DESCRIPTION)
    parser.add_argument(
        "--only",
        type=_names,
        default=list(BENCHMARKS),
        metavar="NAME[,NAME]",
        help=f"some of {', '.join(BENCHMARKS)} (default: all)",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="smallest sizes, to see that all works")
    sizes.add_argument("--full", action="store_true", help="1,000 files and 10,000 rows instead of fewer")
    parser.add_argument("--threads", type=_threads, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON, too")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"Expected some of {', '.join(BENCHMARKS)}, separated by commas, but got {', '.join(map(repr, unknown))}."
        )
    return names


def _threads(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"Expected a number of threads of at least 1, but got {text!r}.")
    return int(text)


def set_threads(threads: Optional[int]) -> None:
    """Limit torch's threads in this process."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def print_report(rows: Sequence[Row], skipped: dict[str, str], machine: dict[str, Any]) -> None:
    """Print the table, what was left out, and the machine."""
    if rows:
        print(format_rows(rows))
    for name, reason in skipped.items():
        print(f"\nSkipped {name}: {reason}.")
    print(f"\nMeasured on {format_machine(machine)}.")
    if machine["load_average"] is not None and machine["load_average"] > BUSY_LOAD * machine["cores"]:
        print("Other work was running: repeat this on an idle machine before you quote a number.")
    unequal = [row.what for row in rows if not row.is_equal]
    if unequal:
        print(f"\nNOT EQUAL to the baseline: {'; '.join(unequal)}.")


def write_json(path: Path, rows: Sequence[Row], skipped: dict[str, str], machine: dict[str, Any]) -> None:
    """Write everything that was measured."""
    content = {"machine": machine, "rows": [row.to_dict() for row in rows], "skipped": skipped}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
