"""docs/configuration.md, made from the schema: `python -m lab.config.document` writes it."""

from __future__ import annotations

import argparse
import inspect
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from lab.config.fields import group_names, known_fields, known_keys, owners
from lab.config.settings import PROJECT_ROOT, Settings
from lab.config.values import NON_EMPTY

DOCUMENT = PROJECT_ROOT / "docs" / "configuration.md"
OPTIONS = PROJECT_ROOT / "conf"
TITLE = """# Configuration keys

Made from the schema by `python -m lab.config.document`; a test holds it current. Any key is set on the command line as
`key=value`, any group as `group=option`; `python pipeline.py --help` shows what a command line makes of them. Numbers
out of range, misspelt keys and words that are no choice are refused in one line before a model loads. `~` in a path is
the home directory. `null` means that nothing is set. Defaults are those of the schema, which the default options of the
groups repeat; a value in YAML that refers to another key, such as `${model.smoothing_sigma}`, follows that key until it
is set."""
TYPES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def document() -> str:
    """Write the page: a table for the root and for each group, with every key."""
    groups = ["", *sorted(group_names())]
    return "\n\n".join([TITLE, *(_section(group) for group in groups)]) + "\n"


def _section(group: str) -> str:
    rows = [_row(key) for key in known_keys() if _is_leaf(key) and _group_of(key) == group]
    table = "\n".join(["| key | type | default | values | meaning |", "|---|---|---|---|---|", *rows])
    return f"## {_heading(group)}\n\n{table}"


def _heading(group: str) -> str:
    if not group:
        return "At the root"
    options = ", ".join(f"`{path.stem}`" for path in sorted((OPTIONS / group).glob("*.yaml")))
    return f"Group `{group}`: {options}"


def _group_of(key: str) -> str:
    return key.partition(".")[0] if "." in key else ""


def _is_leaf(key: str) -> bool:
    return not any(other.startswith(f"{key}.") for other in known_keys())


def _row(key: str) -> str:
    entry = known_fields()[key]
    limit = entry.metadata.get("limit")
    values = "" if limit is None or limit is NON_EMPTY else limit.describe()
    kind = "path" if entry.metadata.get("path") else _type_name(known_keys()[key])
    cells = (f"`{key}`", kind, f"`{_default(key)}`", values, describe_key(key))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _type_name(kind: Any) -> str:
    plain = next((inner for inner in typing.get_args(kind) if inner is not type(None)), kind)
    name = TYPES.get(plain, "text or a list")
    return f"{name} or null" if kind == Optional[plain] else name


def _default(key: str) -> str:
    value: Any = Settings()
    for name in key.split("."):
        value = getattr(value, name)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def describe_key(key: str) -> str:
    """The sentence that the schema says about a key, from the docstring of its record.

    Args:
        key: Dotted key, such as `logic.top_k`.

    Returns:
        One line.

    Raises:
        KeyError: The docstring does not name the field.
    """
    record, name = owners()[key], key.rpartition(".")[2]
    section = inspect.getdoc(record) or ""
    found = re.search(rf"^    {name}: (.*(?:\n {{8}}.*)*)", section, flags=re.MULTILINE)
    if found is None:
        raise KeyError(f"Expected the docstring of {record.__name__} to explain {name}, but it does not.")
    return " ".join(found[1].split())


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Write the page.

    Args:
        arguments: Without the program's name; None for those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="where to write it (default: %(default)s)")
    output = parser.parse_args(arguments).output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
