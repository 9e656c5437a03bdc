"""Files on disk: their names, whole-or-nothing writing, and reading that never runs code."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import pickle
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Union
from urllib.parse import quote

import numpy as np

from lab.records import CollectedAttention, Grid, HeadChoice, HeadScore, Localization, Sample
from lab.safe_pickle import UnsafePickleError, load_plain_pickle

logger = logging.getLogger(__name__)

PathLike = Union[str, "os.PathLike[str]"]

ATTENTION_DTYPES = ("float16", "bfloat16", "float32")

# Attention in float16 is almost noise to gzip: level 1 saves 16 %, level 9 saves 17 % at twice the time.
GZIP_LEVEL = 1

# A model with 80 layers, 64 heads and 2,880 image tokens needs 59 MB; far above that a file is broken or hostile.
MAX_PICKLE_BYTES = 2 << 30

_MAX_NAME_LENGTH = 160
_PICKLE_PROTOCOL = 4
_UNKNOWN_QUERY = "(not recorded)"
_ASSUMED_PATCH_SIZE = 14


# --------------------------------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------------------------------


def safe_name(sample_id: str) -> str:
    """Turn any id into a file name, the same way everywhere, two different ids never into one name.

    Letters, digits, `_`, `-` and `.` stay, all else is percent-encoded as UTF-8. A leading dot is encoded, and so is
    the last underscore of ids such as `a_meta`, whose attention file would otherwise be the metadata file of `a`. Very
    long ids are cut and end in `~` with a hash of the whole.

    Args:
        sample_id: Identifier, any non-empty text.

    Returns:
        A name of at most 160 ASCII characters.

    Raises:
        ValueError: The id is empty.
    """
    if not sample_id:
        raise ValueError("Expected an id to be non-empty text, but got ''. Give every row an id.")
    name = quote(sample_id, safe="", errors="surrogatepass").replace("~", "%7E")
    if name.startswith("."):
        name = "%2E" + name[1:]
    for ending in ("_meta", "_analysis"):
        if name.endswith(ending):
            name = f"{name[: -len(ending)]}%5F{ending[1:]}"
    if len(name) > _MAX_NAME_LENGTH:
        digest = hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).hexdigest()[:20]
        name = f"{name[: _MAX_NAME_LENGTH - 21]}~{digest}"
    return name


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
    def beside(cls, attention_file: PathLike, top_k: int = 3) -> OutputPaths:
        """Give the paths of all that belongs to an attention file, whatever it is called."""
        stem = attention_stem(attention_file)
        return cls(Path(attention_file).parent, stem, top_k, stem)

    def _with(self, ending: str) -> Path:
        return Path(self.directory) / f"{self.stem or safe_name(self.id)}{ending}"

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

    @property
    def figure(self) -> Path:
        """Path of the figure."""
        return self._with(f"_top{self.top_k}.png")

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
            self.figure,
            self.mask,
            self.bbox_json,
        )


def attention_stem(path: PathLike) -> str:
    """Give the file name of an attention file without `.pkl` or `.pkl.gz`, which is the safe name of its id."""
    name = Path(path).name
    for ending in (".pkl.gz", ".pkl"):
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


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


# --------------------------------------------------------------------------------------------------------------------
# Writing whole files
# --------------------------------------------------------------------------------------------------------------------


def atomic_write(path: PathLike, content: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it appears whole or not at all, whatever happens meanwhile.

    Args:
        path: Where to write; missing directories are made.
        content: Bytes, text (as UTF-8), or a function that writes to a binary file object.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _fsync_directory(path.parent)


def remove_partial_files(directory: PathLike, targets: Iterable[Path]) -> int:
    """Remove what a killed run left half-written, for the given target files only.

    Other targets may be in the making by another run that shares the directory.

    Args:
        directory: Directory of the targets.
        targets: The files that this run is going to write.

    Returns:
        Number of files removed.
    """
    names = {target.name for target in targets}
    removed = 0
    for path in Path(directory).glob(".*.part"):
        if path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _fsync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows cannot open a directory
        return
    try:
        os.fsync(descriptor)
    except OSError:  # nor can some network file systems sync one
        logger.debug("Could not sync directory %s.", directory)
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------------------------------------------------
# Attention
# --------------------------------------------------------------------------------------------------------------------


def build_meta(collected: CollectedAttention, dtype: str) -> dict[str, Any]:
    """Build the metadata that is stored with the attention, as plain data.

    Args:
        collected: One sample's attention; its own `meta` is kept whole.
        dtype: Name of the stored number type.

    Returns:
        JSON-ready dictionary.
    """
    meta = dict(collected.meta)
    meta.update(
        id=collected.sample.id,
        image_file=collected.sample.image_file,
        query=collected.sample.query,
        image_size=list(collected.image_size_wh),
        vis_len=collected.grid.num_cells,
        grid=asdict(collected.grid),
        num_layers=collected.num_layers,
        num_heads=collected.num_heads,
        attn_dtype=dtype,
    )
    plain: dict[str, Any] = _to_plain(meta)
    return plain


def save_attention(
    path: PathLike,
    collected: CollectedAttention,
    *,
    dtype: str = "float16",
    compress: bool = True,
    level: int = GZIP_LEVEL,
) -> dict[str, Any]:
    """Write the attention file, and remove its twin (`.pkl` against `.pkl.gz`) so that no stale one is ever read.

    Args:
        path: Where to write; it should end in `.pkl.gz` if compressed, else in `.pkl` (see `OutputPaths.attention`).
        collected: Attention `[layers, heads, visual_tokens]`; stored as a tensor `[layers, heads, 1, visual_tokens]`.
        dtype: Number type of the stored tensor: float16, bfloat16 or float32.
        compress: Whether to gzip.
        level: gzip level.

    Returns:
        The stored metadata.

    Raises:
        ValueError: The dtype is not one of the three.
    """
    import torch

    if dtype not in ATTENTION_DTYPES:
        raise ValueError(f"Expected the stored dtype to be one of {', '.join(ATTENTION_DTYPES)}, but got {dtype!r}.")
    path = Path(path)
    tensor = torch.from_numpy(np.ascontiguousarray(collected.attention[:, :, None, :], dtype=np.float32))
    tensor = tensor.to(getattr(torch, dtype)).clone()
    meta = build_meta(collected, dtype)
    data = pickle.dumps({"attn": tensor, "meta": meta}, protocol=_PICKLE_PROTOCOL)
    atomic_write(path, _gzip(data, level) if compress else data)
    twin = path.with_name(attention_stem(path) + (".pkl" if compress else ".pkl.gz"))
    if twin != path:
        twin.unlink(missing_ok=True)
    return meta


def load_attention(path: PathLike, image_file: str | None = None) -> CollectedAttention:
    """Read an attention file without running any code that it may hold.

    Files of the public tool are read too: a bare tensor, or metadata without a grid. For them the geometry of LLaVA-1.5
    is assumed (image padded to a square, square grid); a warning and `meta["assumed"]` say so.

    Args:
        path: `.pkl` or `.pkl.gz`; its twin is taken where it is missing.
        image_file: Image to use instead of the one in the metadata.

    Returns:
        Attention `[layers, heads, visual_tokens]` float32 with grid, image size and metadata.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds code, or is not an attention file.
    """
    path = find_attention_file(path)
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        content = {"attn": content}
    if "attn" not in content:
        raise ValueError(
            f"Expected {path} to hold the key 'attn', but got the keys {sorted(map(str, content))}. "
            "Give an attention file written by stage=collect, not an analysis or metadata file."
        )
    attention = _to_attention_array(content["attn"], path)
    meta = content.get("meta") or {}
    if not isinstance(meta, Mapping):
        raise ValueError(f"Expected 'meta' in {path} to be a dictionary, but got {type(meta).__name__}.")
    return _to_collected(attention, dict(meta), path, image_file)


def round_attention(attention: np.ndarray, dtype: str) -> np.ndarray:
    """Round attention to what a file of this dtype will hold, so that fresh and stored attention give equal results.

    Args:
        attention: Any shape, float32.
        dtype: float16, bfloat16 or float32.

    Returns:
        A float32 array of the same shape.
    """
    if dtype == "float32":
        return attention
    if dtype == "float16":
        return attention.astype(np.float16).astype(np.float32)
    import torch

    rounded: np.ndarray = torch.from_numpy(attention).to(getattr(torch, dtype)).float().numpy()
    return rounded


def load_meta(path: PathLike) -> dict[str, Any]:
    """Read `<id>_meta.json`."""
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"Expected {path} to hold a JSON object, but got {type(value).__name__}.")
    return value


def _to_attention_array(value: Any, path: Path) -> np.ndarray:
    """Turn a stored tensor or array `[L, H, 1, V]` or `[L, H, V]` into `[L, H, V]` float32."""
    if hasattr(value, "detach"):
        value = value.detach().float().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(f"Expected the attention in {path} to be a tensor of numbers, but got {type(value).__name__}.")
    if value.ndim == 4 and value.shape[2] == 1:
        value = value[:, :, 0, :]
    if value.ndim != 3 or 0 in value.shape:
        raise ValueError(
            f"Expected the attention in {path} to have the shape [layers, heads, 1, visual_tokens], "
            f"but got {list(value.shape)}."
        )
    return np.ascontiguousarray(value, dtype=np.float32)


def _to_collected(
    attention: np.ndarray, meta: dict[str, Any], path: Path, image_file: str | None
) -> CollectedAttention:
    image_file = str(image_file or meta.get("image_file") or "")
    sample = Sample(
        id=str(meta.get("id") or attention_stem(path)),
        image_file=image_file,
        query=str(meta.get("query") or _UNKNOWN_QUERY),
    )
    if "grid" in meta:
        grid, image_size_wh = _grid_from_meta(meta, path)
    else:
        grid, image_size_wh, assumed = _assume_grid(attention.shape[2], meta, image_file, path)
        meta["assumed"] = assumed
        logger.warning("%s holds no grid: assumed %s.", path, assumed)
    return CollectedAttention(attention=attention, grid=grid, image_size_wh=image_size_wh, sample=sample, meta=meta)


def _grid_from_meta(meta: Mapping[str, Any], path: Path) -> tuple[Grid, tuple[int, int]]:
    try:
        width, height = meta["image_size"]
        return Grid(**meta["grid"]), (int(width), int(height))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"Expected the grid and image_size in the metadata of {path} to be complete, but got {error!r}. "
            "Collect again."
        ) from error


def _assume_grid(
    visual_tokens: int, meta: Mapping[str, Any], image_file: str, path: Path
) -> tuple[Grid, tuple[int, int], str]:
    """Place a square grid over the image padded to a square, as LLaVA-1.5 does."""
    side_cells = math.isqrt(visual_tokens)
    if side_cells * side_cells != visual_tokens:
        raise ValueError(
            f"Expected {path}, whose metadata hold no grid, to have a square number of visual tokens, "
            f"but got {visual_tokens}. Collect again, so that the grid is stored."
        )
    image_size_wh, origin = _find_image_size(meta, image_file, side_cells)
    width, height = image_size_wh
    side = max(width, height)
    cell = side / side_cells
    grid = Grid(side_cells, side_cells, -float((side - width) // 2), -float((side - height) // 2), cell, cell)
    return grid, image_size_wh, f"a {side_cells} x {side_cells} grid over the image ({origin}) padded to a square"


def _find_image_size(meta: Mapping[str, Any], image_file: str, side_cells: int) -> tuple[tuple[int, int], str]:
    if image_file and Path(image_file).is_file():
        width, height = read_image_size(image_file)
        return (width, height), f"{width} x {height}, from {image_file}"
    if meta.get("image_size"):
        width, height = (int(number) for number in meta["image_size"])
        return (width, height), f"{width} x {height}, from the metadata"
    side = side_cells * _ASSUMED_PATCH_SIZE
    return (side, side), f"unknown, taken as {side} x {side}; give data.image_file for a true box"


def read_image_size(path: PathLike) -> tuple[int, int]:
    """Read width and height of an image in pixels, after EXIF rotation, without decoding it."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


# --------------------------------------------------------------------------------------------------------------------
# Reading pickles
# --------------------------------------------------------------------------------------------------------------------


def _read_pickle(path: Path) -> Any:
    """Read a pickle, gzipped or not (its first bytes tell), that may hold plain data, tensors and arrays only."""
    data = path.read_bytes()
    if not data:
        raise ValueError(f"Expected {path} to be a pickle, but got an empty file. Delete it and collect again.")
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, path)
    try:
        return load_plain_pickle(data)
    except UnsafePickleError as error:
        raise ValueError(
            f"Expected {path} to hold tensors and plain data only, but got {error}. "
            "It was not loaded, since it could run code; delete it unless you know where it comes from."
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"Expected {path} to be a readable pickle, but got {type(error).__name__}: {error}. "
            "The file is damaged or of another kind; collect again."
        ) from error


def _gunzip(data: bytes, path: Path) -> bytes:
    """Inflate all members of a gzip file, never to more than `MAX_PICKLE_BYTES`."""
    parts: list[bytes] = []
    room = MAX_PICKLE_BYTES
    while data:
        inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(data, room + 1)
        except zlib.error as error:
            raise ValueError(
                f"Expected {path} to be a whole gzip file, but got {error}. The file is damaged; collect again."
            ) from error
        room -= len(part)
        if room < 0:
            raise ValueError(
                f"Expected {path} to inflate to at most {MAX_PICKLE_BYTES} bytes, but got more. "
                "No attention file is that large; the file was not loaded."
            )
        if not inflater.eof:
            raise ValueError(
                f"Expected {path} to be a whole gzip file, but got one that ends too early. "
                "It was cut off while written or copied; collect again."
            )
        parts.append(part)
        data = inflater.unused_data
    return b"".join(parts)


def _gzip(data: bytes, level: int) -> bytes:
    """Deflate to one gzip member without time or name in its header, so that equal data give equal bytes."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, 31)
    return deflater.compress(data) + deflater.flush()


# --------------------------------------------------------------------------------------------------------------------
# Analysis, box, mask, metadata
# --------------------------------------------------------------------------------------------------------------------


def save_analysis(path: PathLike, scores: Sequence[HeadScore]) -> None:
    """Write the ranked heads, best first, as a pickled list of dictionaries."""
    atomic_write(path, pickle.dumps([score._asdict() for score in scores], protocol=_PICKLE_PROTOCOL))


def load_analysis(path: PathLike) -> list[HeadScore]:
    """Read the ranked heads, best first.

    Raises:
        ValueError: The file is damaged, holds code, or is not an analysis.
    """
    rows = _read_pickle(Path(path))
    try:
        return [
            HeadScore(
                layer=int(row["layer"]),
                head=int(row["head"]),
                attn_sum=float(row["attn_sum"]),
                spatial_entropy=float(row["spatial_entropy"]),
                bottom_row_focus=bool(row["bottom_row_focus"]),
                num_components=int(row["num_components"]),
            )
            for row in rows
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"Expected {path} to be a list of heads with layer, head and scores, but got {error!r}. Analyze again."
        ) from error


def bbox_record(sample: Sample, localization: Localization, choice: HeadChoice) -> dict[str, Any]:
    """Build what `<id>_bbox.json` says.

    Args:
        sample: What was asked.
        localization: Where it was found.
        choice: The heads that found it, and where they came from.

    Returns:
        JSON-ready dictionary; `bbox_xyxy` is half-open, in pixels of the original image, or None.
    """
    box = localization.box_xyxy
    record = {
        "id": sample.id,
        "image_file": sample.image_file,
        "query": sample.query,
        "bbox_xyxy": None if box is None else [float(edge) for edge in box],
        "image_size": list(localization.image_size_wh),
        "selected_heads": [score._asdict() for score in choice.heads],
        "heads_source": choice.source,
        "heads_notes": list(choice.notes),
    }
    plain: dict[str, Any] = _to_plain(record)
    return plain


def save_bbox_json(
    path: PathLike,
    sample: Sample,
    localization: Localization,
    choice: HeadChoice,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `<id>_bbox.json`, the last file of an id, and return what it says."""
    record = {**bbox_record(sample, localization, choice), **_to_plain(dict(extra or {}))}
    save_json(path, record)
    return record


def load_bbox_json(path: PathLike) -> dict[str, Any]:
    """Read `<id>_bbox.json`.

    Returns:
        The record; `bbox_xyxy` is a list of four finite numbers with x0 <= x1 and y0 <= y1, or None.

    Raises:
        ValueError: The file is not such a record.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        box = record["bbox_xyxy"]
        if box is not None:
            x0, y0, x1, y1 = (float(edge) for edge in box)
            if not (all(map(math.isfinite, (x0, y0, x1, y1))) and x0 <= x1 and y0 <= y1):
                raise ValueError(f"the box {box}")
            record["bbox_xyxy"] = [x0, y0, x1, y1]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"Expected {path} to hold 'bbox_xyxy' as [x0, y0, x1, y1] or null, but got {error}. Visualize again."
        ) from error
    return dict(record)


def save_mask_png(path: PathLike, mask: np.ndarray) -> None:
    """Write a mask `[height, width]` bool as an 8-bit grey PNG of 0 and 255."""
    from PIL import Image

    image = Image.fromarray(np.where(np.asarray(mask, dtype=bool), 255, 0).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    atomic_write(path, buffer.getvalue())


def save_meta_json(path: PathLike, meta: Mapping[str, Any]) -> None:
    """Write the metadata for people and other programs."""
    save_json(path, dict(meta))


def save_meta_pickle(path: PathLike, meta: Mapping[str, Any]) -> None:
    """Write the metadata as a pickle of plain data."""
    atomic_write(path, pickle.dumps(_to_plain(dict(meta)), protocol=_PICKLE_PROTOCOL))


def save_json(path: PathLike, value: Any) -> None:
    """Write valid JSON (infinities and NaN become null), indented, in UTF-8."""
    text = json.dumps(_finite_or_null(_to_plain(value)), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, (text + "\n").encode("utf-8", "backslashreplace"))


def _to_plain(value: Any) -> Any:
    """Turn records, arrays and numpy scalars into what JSON and plain pickles can hold."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    for kind in (bool, int, float, str):  # of subclasses, such as version strings, only the plain value is kept
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --------------------------------------------------------------------------------------------------------------------
# JSONL
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JsonlLine:
    """One line of a JSONL file that is not blank.

    Attributes:
        number: 1-based line number.
        row: The object, or None where the line is not one.
        error: Why there is no row; empty where there is.
    """

    number: int
    row: dict[str, Any] | None
    error: str = ""


def read_jsonl(path: PathLike) -> Iterator[JsonlLine]:
    """Read a JSONL file line by line; a bad line does not stop the others.

    Args:
        path: UTF-8 text, one JSON object a line; blank lines and a byte order mark are passed over.

    Yields:
        One record for each line that is not blank.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a JSONL file at {path}, but found none. Check the path.")
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line[3:] if line.startswith(b"\xef\xbb\xbf") else line
            if line.strip():
                yield _parse_jsonl_line(number, line)


def _parse_jsonl_line(number: int, line: bytes) -> JsonlLine:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return JsonlLine(number, None, f"Expected line {number} to be UTF-8 text, but got {error.reason}.")
    except (ValueError, RecursionError) as error:
        return JsonlLine(number, None, f"Expected line {number} to be a JSON object, but got unreadable JSON: {error}.")
    if not isinstance(value, dict):
        kind = type(value).__name__
        return JsonlLine(number, None, f"Expected line {number} to be a JSON object, but got a {kind}.")
    return JsonlLine(number, value)


def append_jsonl_line(path: PathLike, row: Mapping[str, Any]) -> None:
    """Append one object as a line, in one write, so that lines of several writers never mix."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite_or_null(_to_plain(dict(row))), ensure_ascii=False) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        os.fsync(file.fileno())
