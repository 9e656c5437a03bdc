"""All formats, and which of them a file is in."""

from __future__ import annotations

from pathlib import Path

from lab.datasets.formats.base import Format
from lab.datasets.formats.coco_files import COCO_INSTANCES, MDETR
from lab.datasets.formats.conversations import CONVERSATIONS
from lab.datasets.formats.delimited import TABLE, VLMEVALKIT
from lab.datasets.formats.json_lines import QWEN, SHIKRA
from lab.datasets.formats.parquet_refs import JXU124, LMMS_LAB
from lab.datasets.formats.reasonseg import REASONSEG
from lab.datasets.formats.refer import GREFCOCO, REFER
from lab.datasets.formats.regions import REF_L4, REFCOCO_M, VISUAL_GENOME
from lab.datasets.sources import first_record, read_any

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        REFER,
        GREFCOCO,
        MDETR,
        SHIKRA,
        LMMS_LAB,
        JXU124,
        QWEN,
        CONVERSATIONS,
        REF_L4,
        REFCOCO_M,
        REASONSEG,
        VISUAL_GENOME,
        COCO_INSTANCES,
        VLMEVALKIT,
        TABLE,
    )
}


def find_format(path: Path) -> Format:
    """Tell the format by the first record.

    Args:
        path: The file or directory.

    Returns:
        The format.

    Raises:
        ValueError: It is none of those that are known, or could be several.
    """
    record = None if path.is_dir() else first_record(read_any(path))
    found = [entry for entry in FORMATS.values() if entry.recognises(path, record)]
    if len(found) == 1:
        return found[0]
    keys = "a directory" if record is None else f"records with {', '.join(map(str, record))[:120]}"
    names = ", ".join(entry.name for entry in found) or "none of the known formats"
    raise ValueError(
        f"Expected to tell the format of {path} by its first record, but got {keys}, which is {names}. "
        f"Say which with --format: {', '.join(FORMATS)}."
    )
