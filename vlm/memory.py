"""Telling that memory did not suffice, and giving back what is left over."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of host or device did not suffice."""
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def free_memory() -> None:
    """Give cached blocks of a GPU back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
