"""Where a model goes: on one device, spread over GPUs, or quantised; says what a setting needs installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

QUANTIZATIONS = ("none", "8bit", "4bit")


@dataclass(frozen=True)
class Placement:
    """Where a model goes.

    Attributes:
        device: Where its inputs go.
        dtype: Number format of its weights, or of what quantised weights are multiplied in.
        reason: Why, in one sentence.
        loading: Options for `from_pretrained`.
        is_spread: Whether another library has placed it already.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str
    loading: dict[str, Any]
    is_spread: bool


def place_model(device: str, device_id: int, dtype: str, quantization: str) -> Placement:
    """Decide where a model runs.

    Args:
        device: `auto`, `cpu`, `cuda:<id>` or `balanced`.
        device_id: Index of the GPU when `device` is `auto`.
        dtype: `auto`, `float16`, `bfloat16` or `float32`.
        quantization: `none`, `8bit` or `4bit`.

    Raises:
        ValueError: If a name is not valid, a device not there, or a library not installed.
    """
    from vlm.device import choose_device

    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"Expected model.quantization to be one of {', '.join(QUANTIZATIONS)}, but got {quantization!r}."
        )
    balanced = device == "balanced"
    if balanced:
        require_library("accelerate", "model.device=balanced")
    if quantization != "none":
        require_library("bitsandbytes", f"model.quantization={quantization}")
        require_library("accelerate", f"model.quantization={quantization}")
    chosen, number_format, reason = choose_device("auto" if balanced else device, device_id, dtype)
    loading: dict[str, Any] = {_dtype_option(): number_format, "low_cpu_mem_usage": True}
    if balanced:
        loading["device_map"], reason = "balanced", reason.replace("model.device=auto", "model.device=balanced")
    elif quantization != "none":
        loading["device_map"] = {"": str(chosen)}
    if quantization != "none":
        loading["quantization_config"] = _quantized(quantization, number_format)
        reason += f", weights in {quantization} (model.quantization)"
    return Placement(chosen, number_format, reason, loading, is_spread="device_map" in loading)


def _quantized(quantization: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)


def require_library(library: str, setting: str) -> None:
    """Refuse a setting whose library is missing."""
    import importlib.util

    if importlib.util.find_spec(library) is None:
        raise ValueError(
            f"Expected {library} to be installed for {setting}, but got none. Install it (pip install {library}), or "
            "leave the setting at its default."
        )


def _dtype_option() -> str:
    """Transformers renamed the option in 4.56."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
