"""YAML that others wrote, read with bounds on size, depth and numbers, references to earlier parts written out."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from foreign_files.messages import shorten_reason

# PyYAML takes some seconds for so much; a heads file has some thousand bytes.
MAX_BYTES = 256 << 10
MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_DIGITS = 100


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file of plain data.

    Args:
        path: UTF-8 text.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, larger than `MAX_BYTES`, deeper than `MAX_DEPTH`, has more than `MAX_NODES` values
            once each reference to an earlier part (`*name`) is written out, or holds a number of more than
            `MAX_DIGITS` digits; the message goes behind 'but got'.
    """
    import yaml

    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_bounded_loader())  # which is a safe one
    except (yaml.YAMLError, TypeError, OverflowError) as error:
        raise ValueError(shorten_reason(error)) from error


@lru_cache(maxsize=1)
def _bounded_loader() -> Any:
    """PyYAML's safe loader, which counts nodes and levels, unfolded, before it goes down into them."""
    import yaml

    class BoundedLoader(yaml.SafeLoader):
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self.nodes = 0  # with each part counted as often as it is referred to
            self.heights = [0]  # of the nodes that are being composed, outermost first, as far as is known
            self.anchored: dict[str, tuple[int, int]] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.events.AliasEvent):
                self.count(*self.anchored.get(str(event.anchor), (MAX_NODES, 0)))
                return super().compose_node(parent, index)
            before = self.nodes
            self.count(1, 0)
            self.heights.append(0)
            node = super().compose_node(parent, index)
            height = self.heights.pop() + 1
            self.heights[-1] = max(self.heights[-1], height)
            if event.anchor is not None:
                self.anchored[str(event.anchor)] = self.nodes - before, height
            return node

        def count(self, nodes: int, height: int) -> None:
            self.nodes += nodes
            self.heights[-1] = max(self.heights[-1], height)
            if self.nodes > MAX_NODES or len(self.heights) + height > MAX_DEPTH:
                raise ValueError(
                    f"data that unfold to more than {MAX_NODES} values or are nested more than {MAX_DEPTH} deep"
                )

        def construct_scalar(self, node: Any) -> Any:
            value = super().construct_scalar(node)
            if node.tag.endswith((":int", ":float")) and len(value) > MAX_DIGITS:
                raise ValueError(f"a number of {len(value)} digits, where {MAX_DIGITS} are the most")
            return value

    return BoundedLoader
