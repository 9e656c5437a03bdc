"""Names of the files of a run: what belongs to an id, and where attention files lie."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union
from urllib.parse import quote

from lab.records import Sample

PathLike = Union[str, "os.PathLike[str]"]

FIGURE_FORMATS = ("png", "pdf", "svg")
_MAX_NAME_LENGTH = 160
_PLAIN = re.compile(r"(?!.*_(?:meta|analysis)\Z)[a-z0-9_-]{1,160}")

# Windows takes these for devices, whatever the case and whatever follows a dot.
_DEVICES = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))))


def safe_name(sample_id: str) -> str:
    """Turn any id into a file name, the same way everywhere, two different ids never into one name.

    Letters, digits, `_`, `-` and `.` stay, all else is percent-encoded as UTF-8; so are a leading dot, the first letter
    of a name that is a device on Windows (`con`, `nul.x`), and the last underscore of ids such as `a_meta`, whose
    attention file would otherwise be the metadata file of `a`. A dot at the end harms nowhere, since an ending follows.
    Very long ids are cut and end in `~` with a hash of the whole.

    Args:
        sample_id: Identifier, any non-empty text.

    Returns:
        A name of at most 160 ASCII characters.

    Raises:
        ValueError: The id is empty.
    """
    return _cut(_harmless(sample_id), sample_id)


def distinct_name(sample_id: str) -> str:
    """The name of an id that shares a run with another one that differs from it by case only.

    On macOS and Windows their plain names would be one file. An id with capitals keeps its spelling, but ends in `~`
    with a number that says which of its letters are capitals: `Bird` is `Bird~1`, `COCO_7` is `COCO_7~f` (bit n of
    the hexadecimal number is the n-th letter).
    """
    capitals, name = _capitals(sample_id), _harmless(sample_id)
    return _cut(f"{name}~{capitals:x}" if capitals else name, sample_id)


def differ_by_case_only(sample_ids: Iterable[str]) -> frozenset[str]:
    """The ids that are equal to another of them but for case, and so need their `distinct_name`."""
    spellings: dict[str, set[str]] = {}
    for sample_id in sample_ids:
        spellings.setdefault(sample_id.lower(), set()).add(sample_id)
    return frozenset(sample_id for group in spellings.values() if len(group) > 1 for sample_id in group)


def possible_stems(sample_id: str) -> tuple[str, ...]:
    """All that the file names of an id may begin with: distinct, safe, and as versions gave it that knew no devices."""
    if _PLAIN.fullmatch(sample_id) and sample_id not in _DEVICES:  # most ids, of which all three are the id itself
        return (sample_id,)
    return tuple(dict.fromkeys((distinct_name(sample_id), safe_name(sample_id), _cut(_encode(sample_id), sample_id))))


def find_stem(sample_id: str, present: Collection[str], endings: Sequence[str] = ("_bbox.json",)) -> str:
    """Find what the file names of an id begin with in a directory of results.

    Args:
        sample_id: Identifier.
        present: Names of the files in the directory, exactly as they are listed.
        endings: The files that are looked for, any of which will do.

    Returns:
        The first of `possible_stems` of which one of the files is there; the safe name where none is.
    """
    names = possible_stems(sample_id)
    found = next((name for name in names if any(name + ending in present for ending in endings)), None)
    return safe_name(sample_id) if found is None else found


def _harmless(sample_id: str) -> str:
    name = _encode(sample_id)
    return f"%{ord(name[0]):02X}{name[1:]}" if name.split(".")[0].lower() in _DEVICES else name


def _encode(sample_id: str) -> str:
    if not sample_id:
        raise ValueError("Expected an id to be non-empty text, but got ''. Give every row an id.")
    name = quote(sample_id, safe="", errors="surrogatepass").replace("~", "%7E")
    if name.startswith("."):
        name = "%2E" + name[1:]
    for ending in ("_meta", "_analysis"):
        if name.endswith(ending):
            name = f"{name[: -len(ending)]}%5F{ending[1:]}"
    return name


def _capitals(sample_id: str) -> int:
    """Which ASCII letters are capitals: bit n stands for the n-th letter. Others are percent-encoded anyway."""
    letters = [letter for letter in sample_id if letter.isascii() and letter.isalpha()]
    return sum(1 << position for position, letter in enumerate(letters) if letter.isupper())


def _cut(name: str, sample_id: str) -> str:
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).hexdigest()[:20]
    return f"{name[: _MAX_NAME_LENGTH - 21]}~{digest}"


@dataclass(frozen=True)
class OutputPaths:
    """The paths of all files of one id.

    Attributes:
        directory: Directory of the model, such as `outputs/results/llava-hf-llava-1.5-7b-hf`.
        id: Identifier of the sample, any text.
        top_k: Number of heads on the figure; it is part of the figure's name.
        stem: What the file names begin with; None for the safe name of the id.
    """

    directory: Path
    id: str
    top_k: int = 3
    stem: str | None = None

    @classmethod
    def of_sample(cls, directory: Path, sample: Sample, top_k: int = 3) -> OutputPaths:
        """Give the paths of a sample's files, which may not be named by its id alone."""
        return cls(directory, sample.id, top_k, sample.file_stem)

    @classmethod
    def beside(cls, attention_file: PathLike, top_k: int = 3) -> OutputPaths:
        """Give the paths of all that belongs to an attention file, whatever it is called."""
        stem = attention_stem(attention_file)
        return cls(Path(attention_file).parent, stem, top_k, stem)

    @property
    def file_stem(self) -> str:
        """What the names of all its files begin with."""
        return self.stem or safe_name(self.id)

    def _with(self, ending: str) -> Path:
        return Path(self.directory) / f"{self.file_stem}{ending}"

    def attention(self, compress: bool = True) -> Path:
        """Path of the attention file."""
        return self._with(".pkl.gz" if compress else ".pkl")

    @property
    def meta_json(self) -> Path:
        """Path of the metadata as JSON."""
        return self._with("_meta.json")

    @property
    def meta_pickle(self) -> Path:
        """Path of the metadata as a pickle."""
        return self._with("_meta.pkl")

    @property
    def analysis(self) -> Path:
        """Path of the ranked heads."""
        return self._with("_analysis.pkl")

    def figure(self, kind: str = "png") -> Path:
        """Path of the figure in one of `FIGURE_FORMATS`."""
        return self._with(f"_top{self.top_k}.{kind}")

    @property
    def mask(self) -> Path:
        """Path of the mask."""
        return self._with("_mask.png")

    @property
    def bbox_json(self) -> Path:
        """Path of the box; it is written last, so that its presence says that the id is done."""
        return self._with("_bbox.json")

    def all_paths(self) -> tuple[Path, ...]:
        """Every path that a run may write for this id."""
        return (
            self.attention(True),
            self.attention(False),
            self.meta_json,
            self.meta_pickle,
            self.analysis,
            *map(self.figure, FIGURE_FORMATS),
            self.mask,
            self.bbox_json,
        )


def attention_stem(path: PathLike) -> str:
    """Give the file name of an attention file without `.pkl` or `.pkl.gz`: the safe name of its id, or an older one."""
    name = Path(path).name
    for ending in (".pkl.gz", ".pkl"):
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


def is_file(path: PathLike) -> bool:
    """Whether a path from a file or a row names a file; one that no system takes, with a NUL or far too long, does not.

    Args:
        path: Whatever somebody wrote.
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def exists(path: PathLike) -> bool:
    """Whether there is anything at a path, which may be one that no system takes.

    Args:
        path: Whatever somebody wrote.
    """
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def find_attention_file(path: PathLike) -> Path:
    """Find an attention file under its name or under its twin's: `x.pkl`, `x.pkl.gz` and `x` stand for each other.

    Args:
        path: Where the file should be.

    Returns:
        The path that exists.

    Raises:
        FileNotFoundError: There is neither.
    """
    path = Path(path)
    stem = path.with_name(attention_stem(path))
    candidates = (path, stem.with_name(stem.name + ".pkl.gz"), stem.with_name(stem.name + ".pkl"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"Expected an attention file at {path} (or its .pkl / .pkl.gz twin), but found none. "
        "Make one with stage=collect, or check data.attention_file."
    )


def list_attention_files(directory: PathLike) -> list[Path]:
    """List the attention files of a directory in name order: each id once, no analysis or metadata pickles.

    Args:
        directory: Directory of a model's results.

    Returns:
        Sorted paths; empty where there are none.

    Raises:
        NotADirectoryError: The directory does not exist.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(
            f"Expected a directory of attention files at {directory}, but there is none. "
            "Make one with stage=batch, or check data.batch_attention_dir."
        )
    by_stem: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        stem = attention_stem(path)
        is_attention = path.name.endswith((".pkl", ".pkl.gz")) and not path.name.startswith(".")
        if is_attention and not path.name.endswith(("_analysis.pkl", "_meta.pkl")):
            by_stem[stem] = path
    return [by_stem[stem] for stem in sorted(by_stem)]
