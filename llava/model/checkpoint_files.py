"""Finds and reads the files of a checkpoint, in a directory or in the hub's cache."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CACHE_VARIABLES = ("TRANSFORMERS_CACHE", "HF_HOME", "HF_HUB_CACHE")
# Each with its index for checkpoints in several files; the first that is there is read.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Tensors that an error names of each kind.
_SHOWN = 4


def export_cache_dir(cache_dir: str | None) -> None:
    """Point every variable that transformers and its hub client read at one cache.

    Call it before transformers is imported, since it reads them once. None leaves the environment as it is.

    Args:
        cache_dir: Directory for downloaded files (`model.cache_dir`).
    """
    if cache_dir is None:
        return
    if "huggingface_hub" in sys.modules:
        logger.warning("model.cache_dir was exported after the hub client was imported: it keeps its earlier cache.")
    for variable in CACHE_VARIABLES:
        os.environ[variable] = str(cache_dir)


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint.

    Attributes:
        name: A directory, or the id of a hub repository.
        cache_dir: Where downloaded files are kept; None for the default place.
        revision: Branch, tag or commit of a hub repository.
    """

    name: str
    cache_dir: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the name is a directory."""
        return os.path.isdir(self.name)

    def find(self, file_name: str) -> Path | None:
        """Path of a file, downloaded if need be, or None if the checkpoint does not have it.

        Raises:
            ValueError: If the checkpoint itself cannot be reached.
        """
        if self.is_local:
            path = Path(self.name, file_name)
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, file_name, cache_dir=self.cache_dir, revision=self.revision))
        except HFValidationError:
            raise ValueError(self._unreachable("which is neither a directory nor a repository id")) from None
        except (LocalEntryNotFoundError, EntryNotFoundError):
            return None
        except (OSError, ValueError) as error:
            raise ValueError(self._unreachable(f"which cannot be reached ({_first_line(error)})")) from error

    def require(self, file_name: str) -> Path:
        """Path of a file that must be there.

        Raises:
            ValueError: If it is not; for a hub repository the text says how to fetch it.
        """
        path = self.find(file_name)
        if path is not None:
            return path
        if self.is_local:
            raise ValueError(f"Expected {self.name!r} to hold {file_name}, but got a directory without it.")
        raise ValueError(self._unreachable(f"whose {file_name} is neither in the cache nor to be had from the hub now"))

    def json(self, file_name: str) -> dict[str, Any]:
        """Content of a JSON file, or nothing at all if the checkpoint does not have it."""
        path = self.find(file_name)
        if path is None:
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"Expected {path} to be JSON, but got text that is not ({error}).") from error

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of every weight, file by file, each read from disk only as it is used.

        Raises:
            ValueError: If there are no weights, or a file of theirs is missing or broken.
        """
        for path in self._weight_paths():
            yield from _read_tensors(path)

    def _weight_paths(self) -> list[Path]:
        for file_name in _WEIGHT_FILES:
            index = self.json(f"{file_name}.index.json")
            if index:
                return [self.require(shard) for shard in sorted(set(index["weight_map"].values()))]
            path = self.find(file_name)
            if path is not None:
                return [path]
        raise ValueError(
            f"Expected {self.name!r} to hold weights ({' or '.join(_WEIGHT_FILES)}, whole or with an index), "
            "but got none of them."
        )

    def _unreachable(self, what: str) -> str:
        place = f" --cache-dir {self.cache_dir}" if self.cache_dir else ""
        revision = f" --revision {self.revision}" if self.revision else ""
        return (
            f"Expected model {self.name!r} to be at hand, but got a name {what}. "
            f"Where there is a network, run: hf download {self.name}{revision}{place}"
        )


def refuse_faulty_tensors(checkpoint: str, **faults: list[str]) -> None:
    """Raise if tensors do not fit, in one line that counts them and names the first few of each kind.

    Args:
        checkpoint: Its name.
        **faults: For each kind (missing, unexpected, misshapen) the names.

    Raises:
        ValueError: If there is any.
    """
    found = [f"{len(names)} {kind} ({_some(names)})" for kind, names in faults.items() if names]
    if found:
        raise ValueError(
            f"Expected the tensors of {checkpoint!r} to be those of its config.json, but got {', '.join(found)}. "
            "Fetch the checkpoint again, or check that its config.json belongs to it."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _read_tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    if path.suffix == ".safetensors":
        yield from _read_safetensors(path)
    else:
        yield from _load_pickle(path).items()


def _read_safetensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 - the handle is no mapping
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"Expected {path} to be a whole safetensors file, but got a broken one ({error}).") from error


def _load_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.bin` file, mapped rather than read where its format allows it."""
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on broken files
        raise ValueError(
            f"Expected {path} to hold tensors and nothing else, but got a broken or unsafe file ({_first_line(error)})."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
