"""Decides where a model runs and in which number format, and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float16", "bfloat16", "float32")


def choose_device(device: str, device_id: int, dtype: str) -> tuple[torch.device, torch.dtype, str]:
    """Decide where the model runs and in which number format.

    Args:
        device: `auto`, `cpu` or `cuda:<id>`.
        device_id: Index of the GPU when `device` is `auto`.
        dtype: One of `DTYPES`.

    Returns:
        Device, format, and a sentence that says why.

    Raises:
        ValueError: If the device is not there, or a name is not valid.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        chosen = torch.device("cuda", device_id) if gpus else torch.device("cpu")
        why = "model.device=auto and there is a GPU" if gpus else "model.device=auto and torch finds no GPU"
    else:
        chosen, why = _named_device(device), f"model.device={device}"
    if chosen.type == "cuda" and (chosen.index or 0) >= gpus:
        raise ValueError(
            f"Expected model.device={device} with model.device_id={device_id} to name one of the {gpus} GPUs that "
            f"torch finds, but got cuda:{chosen.index or 0}. Use model.device=cpu, or install torch with CUDA."
        )
    if dtype not in DTYPES:
        raise ValueError(f"Expected model.dtype to be one of {', '.join(DTYPES)}, but got {dtype!r}.")
    if dtype == "auto":
        name = "float16" if chosen.type == "cuda" else "float32"
        return chosen, getattr(torch, name), f"{chosen} ({why}) in {name} (the default there)"
    return chosen, getattr(torch, dtype), f"{chosen} ({why}) in {dtype} (model.dtype={dtype})"


def _named_device(device: str) -> torch.device:
    import torch

    kind, _, index = device.partition(":")
    if kind not in {"cpu", "cuda"} or (index and not index.isdigit()):
        raise ValueError(f"Expected model.device to be auto, cpu or cuda:<id>, but got {device!r}.")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device("cpu")
