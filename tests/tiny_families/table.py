"""The table of families in docs/models.md, every tiny model checked: `python -m tests.tiny_families.table`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.tiny_families import FAMILIES
from tests.tiny_families.loading import QUERY, SHAPES, load, picture
from vlm.model_check import check_model

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "models.md"
START, END = "<!-- table of families: made by python -m tests.tiny_families.table -->", "<!-- end of the table -->"
HEAD = "| tiny family | class | layers with a map | regions | rows off eager | sharing, off plain | grid, cells off |"


def table(names: Sequence[str]) -> str:
    """The table for some families, checked now.

    Args:
        names: Keys of `FAMILIES`.

    Returns:
        Markdown; numbers are the largest over a landscape, a portrait and a square picture.
    """
    rows = [_row(name, check_model(load(name), [picture(shape) for shape in SHAPES], QUERY)) for name in names]
    return "\n".join([HEAD, "|---|---|---|---|---|---|---|", *rows])


def _row(name: str, report: Mapping[str, Any]) -> str:
    pictures = report["pictures"]
    layers, without = report["num_layers"], len(report["layers_without_map"])
    cells = (
        name,
        report["class"],
        f"{layers - without} of {layers}",
        _regions(pictures[0]),
        f"{max(found['rows_off_eager'] for found in pictures):.0e}",
        _sharing([found["sharing"] for found in pictures]),
        _grid([found["grid_probe"] for found in pictures]),
    )
    return f"| {' | '.join(cells)} |"


def _regions(found: Mapping[str, Any]) -> str:
    kinds = [region["kind"] for region in found["regions"]]
    words = [f"{kinds.count(kind)} {kind}{'s' if kinds.count(kind) > 1 else ''}" for kind in dict.fromkeys(kinds)]
    separators = [f"{found['separators']} separators"] if found["separators"] else []
    measured = ["measured"] if found["regions_from"] != "rule" else []
    return ", ".join(["whole" if kinds == ["whole"] else " and ".join(words), *separators, *measured])


def _sharing(found: Sequence[Mapping[str, Any]]) -> str:
    ways = ", ".join(dict.fromkeys(sharing["way"] for sharing in found))
    differences = [sharing["difference"] for sharing in found if sharing["difference"] is not None]
    return f"{ways}, {max(differences):.0e}" if differences else ways


def _grid(found: Sequence[Mapping[str, Any]]) -> str:
    verdicts = ", ".join(dict.fromkeys(probe["verdict"] for probe in found))
    off = [probe["cells_off"] for probe in found if probe["cells_off"] is not None]
    return f"{verdicts}, {max(off):.2f}" if off else verdicts


def with_table(document: str, made: str) -> str:
    """The document with the table between its marks replaced."""
    before, _, rest = document.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{made}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the families, print the table, and put it into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="print the table of these only (default: write that of all)")
    names = parser.parse_args(arguments).families
    made = table(names or tuple(FAMILIES))
    sys.stdout.write(made + "\n")
    if not names:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8"), made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
