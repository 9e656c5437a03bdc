"""Names of COCO's pictures: what is written in reference files is often no file on disk."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Optional

_COCO = re.compile(r"COCO_(train|val|test)(2014|2015)_(\d{12})")


def coco_names(name: str, image_id: Optional[int] = None) -> tuple[str, ...]:
    """Names under which a COCO picture may lie on disk, the likeliest first.

    REFER's `file_name` is `COCO_train2014_<image>_<n>.jpg`, which exists nowhere: what follows the twelve digits is a
    number of the reference. The 2017 edition calls the same picture `<image>.jpg`.

    Args:
        name: The name as a file has it, or an empty string.
        image_id: COCO's number of the picture, where the file says it.

    Returns:
        The names, each once.
    """
    base = PurePosixPath(name.replace("\\", "/")).name
    match = _COCO.search(base)
    names = [] if match and not re.fullmatch(_COCO.pattern + r"\.\w+", base) else [name] if name else []
    if match:
        names += [f"{match[0]}.jpg", f"{match[3]}.jpg"]
    if image_id is not None and image_id >= 0:
        names += [f"COCO_train2014_{image_id:012d}.jpg", f"COCO_val2014_{image_id:012d}.jpg", f"{image_id:012d}.jpg"]
    return tuple(dict.fromkeys(names))
