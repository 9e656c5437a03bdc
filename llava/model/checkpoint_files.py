"""Finds and reads the files of a checkpoint, in a directory or in the hub's cache."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llava.model.file_checks import check_weight_file, read_settings, refuse_pointer
from llava.model.hub import announce_download, cache_place, is_repository_id, look_up, size_hint

if TYPE_CHECKING:
    import torch

# Each with its index for checkpoints in several files; the first that is there is read.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Tensors that an error names of each kind.
_SHOWN = 4


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of one checkpoint.

    Attributes:
        name: A directory, or the id of a hub repository.
        cache_dir: Where downloaded files are kept; None for the default place.
        revision: Branch, tag or commit of a hub repository.
        named_in: The key and file that name it, for messages; empty for the model itself.
    """

    name: str
    cache_dir: str | None = None
    revision: str | None = None
    named_in: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the name is a directory."""
        return os.path.isdir(self.name)

    def announce(self, bytes_per_number: int) -> None:
        """Say what will have to be downloaded before anything is.

        Args:
            bytes_per_number: Bytes of a weight as the model will hold it.

        Raises:
            ValueError: If the name is neither a directory nor a repository.
        """
        if self.is_local:
            return
        if not is_repository_id(self.name):
            raise ValueError(self._no_repository())
        announce_download(self.name, self.revision, self.cache_dir, bytes_per_number)

    @property
    def directory(self) -> str:
        """Where its files lie: the directory itself, or the snapshot in the cache, with all that loading takes.

        Raises:
            ValueError: If the checkpoint cannot be reached.
        """
        if self.is_local:
            return self.name
        for file_name in look_up(self.name, self.revision).needed():
            self.find(file_name)
        return str(self.require("config.json").parent)

    def find(self, file_name: str) -> Path | None:
        """Path of a file, downloaded if need be, or None if the checkpoint does not have it.

        Raises:
            ValueError: If the checkpoint itself cannot be reached, or the file is a mere pointer to Git LFS.
        """
        path = Path(self.name, file_name) if self.is_local else self._find_in_hub(file_name)
        if path is None or not path.is_file():
            return None
        refuse_pointer(path)
        return path

    def _find_in_hub(self, file_name: str) -> Path | None:
        if not is_repository_id(self.name):
            raise ValueError(self._no_repository())
        from huggingface_hub import hf_hub_download

        listing = look_up(self.name, self.revision)
        if listing.sizes is not None and file_name not in listing.sizes:
            return None
        place: dict[str, Any] = {"cache_dir": self.cache_dir, "revision": self.revision}
        try:
            return Path(hf_hub_download(self.name, file_name, local_files_only=listing.sizes is None, **place))
        except Exception as error:  # the client raises errors of whichever HTTP library it uses
            if listing.sizes is None:
                return None
            raise ValueError(
                f"Expected {file_name} of {self.name!r} to come from the hub, but got {_first_line(error)[:200]}. "
                "Run the same command again: what has been downloaded is kept."
            ) from error

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
        raise ValueError(self._unreachable(file_name))

    def json(self, file_name: str) -> dict[str, Any]:
        """Content of a JSON file, or nothing at all if the checkpoint does not have it.

        Raises:
            ValueError: If it is too large, no JSON, or holds something else than named values.
        """
        path = self.find(file_name)
        return {} if path is None else read_settings(path)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of every weight, file by file, each read from disk only as it is used.

        Raises:
            ValueError: If there are no weights, or a file of theirs is missing or broken.
        """
        for path in self._weight_paths():
            yield from _read_tensors(path)

    def check_weights(self) -> None:
        """See that every file of weights is there and whole, as far as its outside tells, before any is read.

        Raises:
            ValueError: If there are none, or one is missing, cut off, or a pointer to Git LFS.
        """
        for path in self._weight_paths():
            check_weight_file(path)

    def _weight_paths(self) -> list[Path]:
        for file_name in _WEIGHT_FILES:
            index = self.json(f"{file_name}.index.json")
            if index:
                return [self.require(shard) for shard in _shards(index, f"{file_name}.index.json of {self.name!r}")]
            path = self.find(file_name)
            if path is not None:
                return [path]
        raise ValueError(
            f"Expected {self.name!r} to hold weights ({' or '.join(_WEIGHT_FILES)}, whole or with an index), "
            "but got none of them."
        )

    def _no_repository(self) -> str:
        """What to say of a path that is not here."""
        if self.named_in:
            return (
                f"Expected {self.named_in} to name a vision tower that is here, but got {reprlib.repr(self.name)}, "
                "which is neither a directory here nor a repository id. Set it to the tower's directory, or to its "
                "repository, such as openai/clip-vit-large-patch14-336."
            )
        return (
            "Expected model.name to be a directory or a repository id (owner/name), but got "
            f"{reprlib.repr(self.name)}, which is neither a directory nor a repository id. Check the path."
        )

    def _unreachable(self, file_name: str) -> str:
        place = f" --cache-dir {self.cache_dir}" if self.cache_dir else ""
        revision = f" --revision {self.revision}" if self.revision else ""
        cache = cache_place(self.cache_dir)
        if Path(cache, "config.json").is_file():
            advice = f"{cache} is a checkpoint itself rather than a cache: give it as model.name={cache}"
        else:
            advice = f"Where there is a network, run: hf download {self.name}{revision}{place}{size_hint(self.name)}"
        reason = look_up(self.name, self.revision).reason or "it has no such file"
        return (
            f"Expected model {self.name!r} to be at hand, but got a name whose {file_name} is neither in the cache "
            f"{cache} nor to be had from the hub ({reason}). {advice}"
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


def _shards(index: Mapping[str, Any], where: str) -> list[str]:
    """Names of the files that an index of weights lists."""
    weight_map = index.get("weight_map")
    named = isinstance(weight_map, dict) and weight_map and all(isinstance(name, str) for name in weight_map.values())
    if not isinstance(weight_map, dict) or not named:
        raise ValueError(f"Expected {where} to say which file holds which tensor (weight_map), but got none.")
    shards = sorted(set(weight_map.values()))
    outside = [name for name in shards if Path(name).name != name]
    if outside:
        raise ValueError(f"Expected {where} to name files beside it, but got {reprlib.repr(outside[0])}.")
    return shards


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
            return cast("dict[str, torch.Tensor]", torch.load(path, map_location="cpu", weights_only=True, mmap=True))
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return cast("dict[str, torch.Tensor]", torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises nearly anything on broken files
        raise ValueError(
            f"Expected {path} to hold tensors and nothing else, but got a broken or unsafe file ({_first_line(error)})."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
