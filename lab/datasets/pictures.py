"""Finding the pictures that a data set names, and writing out those that it carries inside."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Optional

from lab.datasets.expressions import Picture
from lab.storage.files import atomic_write

SUBDIRECTORIES = (
    "",
    "train2014",
    "val2014",
    "train2017",
    "val2017",
    "images",
    "coco/train2014",
    "coco/val2014",
    "coco/train2017",
    "coco/val2017",
    "VG_100K",
    "VG_100K_2",
)
_SUFFIX_OF_FORMAT = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


@dataclass(frozen=True)
class FoundPicture:
    """Where a picture is.

    Attributes:
        path: Its path, or the likeliest one where it was not found.
        size_wh: Width and height after EXIF rotation, or None where neither the file nor the data set tells them.
        on_disk: Whether it is there.
        stated_size_wh: What the data set says, where that differs from the picture itself; else None.
    """

    path: Path
    size_wh: Optional[tuple[int, int]]
    on_disk: bool
    stated_size_wh: Optional[tuple[int, int]] = None


@dataclass
class PictureFinder:
    """Finds each picture of a data set once.

    Attributes:
        directories: Where to look, in order; COCO's and Visual Genome's usual subdirectories of them are searched, too.
        embedded: Directory into which pictures that the data set carries are written.
    """

    directories: Sequence[Path]
    embedded: Path
    _found: dict[tuple[object, ...], FoundPicture] = field(default_factory=dict)

    def find(self, picture: Picture) -> FoundPicture:
        """Find a picture, or write it out.

        Args:
            picture: What the data set says of it.

        Returns:
            Where it is.

        Raises:
            ValueError: What the data set carries is no picture.
        """
        digest = hashlib.sha256(picture.content).hexdigest() if picture.content is not None else None
        key = (picture.names, picture.image_id, digest)
        if key not in self._found:
            self._found[key] = self._look(picture) if digest is None else self._write(picture, digest)
        return self._found[key]

    def _look(self, picture: Picture) -> FoundPicture:
        path = self._existing(picture.names)
        if path is None:
            likely = PurePosixPath(picture.names[0]) if picture.names else PurePosixPath(str(picture.image_id))
            base = self.directories[0] if self.directories else Path()
            return FoundPicture(base / likely, picture.size_wh, on_disk=False)
        size = read_size(path)
        differs = picture.size_wh is not None and picture.size_wh != size
        return FoundPicture(path, size, on_disk=True, stated_size_wh=picture.size_wh if differs else None)

    def _existing(self, names: Sequence[str]) -> Optional[Path]:
        """The first of the names, as given or by its last part, in the first of the directories that has it."""
        for name in names:
            parts = PurePosixPath(name.replace("\\", "/"))
            for directory in self.directories:
                for subdirectory in SUBDIRECTORIES:
                    for candidate in (directory / subdirectory / parts, directory / subdirectory / parts.name):
                        if candidate.is_file():
                            return candidate
        return None

    def _write(self, picture: Picture, digest: str) -> FoundPicture:
        """Write the bytes as they are; pictures of one name that differ keep apart."""
        assert picture.content is not None, "only pictures that are carried are written"
        size, suffix = _size_and_suffix(picture.content, picture)
        stem = PurePosixPath(picture.names[0]).stem if picture.names else str(picture.image_id or digest[:16])
        path = self.embedded / f"{stem}{suffix}"
        if path.is_file() and path.read_bytes() != picture.content:
            path = self.embedded / f"{stem}-{digest[:8]}{suffix}"
        if not path.is_file():
            atomic_write(path, picture.content)
        return FoundPicture(path, size, on_disk=True)


def read_size(path: Path) -> Optional[tuple[int, int]]:
    """Width and height of a picture file after EXIF rotation, from its head alone; None where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return _rotated_size(image)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None


def _rotated_size(image: object) -> tuple[int, int]:
    from PIL import Image

    assert isinstance(image, Image.Image), "only PIL's pictures have a size here"
    width, height = image.size
    turned = image.getexif().get(274, 1) in {5, 6, 7, 8}  # EXIF's orientation: the sides change places
    return (height, width) if turned else (width, height)


def _size_and_suffix(content: bytes, picture: Picture) -> tuple[tuple[int, int], str]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return _rotated_size(image), _SUFFIX_OF_FORMAT.get(str(image.format), ".png")
    except (UnidentifiedImageError, OSError, ValueError):
        name = picture.names[0] if picture.names else picture.image_id
        raise ValueError(f"Expected the data set to carry a picture for {name!r}, but its bytes are none.") from None
