"""Child process of `test_crafted_files`: reads files under a limit of memory and time, and says what it got."""

from __future__ import annotations

import json
import pickle
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lab.heads.heads_file import read_heads_file
from lab.storage import files, run_state
from lab.storage.attention_files import load_attention

MEMORY = 1 << 30
SECONDS = 10


def read_rows(path: Path) -> None:
    for line in files.read_jsonl(path):
        if line.row is None:
            raise ValueError(f"{path}: {line.error}")


def read_run(path: Path) -> None:
    directory = path.with_suffix("")
    directory.mkdir(exist_ok=True)
    (directory / "run.json").write_bytes(path.read_bytes())
    run_state._read_settings(directory / "run.json")


READERS = {
    "attention": load_attention,
    "analysis": files.load_analysis,
    "bbox": files.load_bbox_json,
    "meta": files.load_meta,
    "run": read_run,
    "jsonl": read_rows,
    "heads": read_heads_file,
}


def compare_with_pickle(path: Path, loaded: Any) -> str:
    """Say how what was read differs from what plain pickle gives, which is safe for these files alone."""
    import torch

    data = path.read_bytes()
    try:
        content = torch.load(path, weights_only=True) if data[:4] == b"PK\3\4" else pickle.loads(data)
        if isinstance(content, int):
            content = torch.load(path, weights_only=True)
    except Exception as error:  # it is stricter about what stands around the numbers, which must be the old ones then
        same = np.allclose(loaded.attention, (np.arange(16) % 7 + 1) / 64, atol=1e-3)
        return "" if same else f"numbers where plain pickle refuses: {type(error).__name__} {error}"
    attention = content["attn"] if isinstance(content, dict) else content
    attention = attention.float().numpy() if isinstance(attention, torch.Tensor) else np.asarray(attention)
    expected = attention.reshape(loaded.attention.shape).astype(np.float32)
    return "" if np.array_equal(expected, loaded.attention) else "other numbers than plain pickle gives"


def read(reader: str, path: Path, compare: bool) -> dict[str, Any]:
    start = time.process_time()
    answer: dict[str, Any] = {"error": None, "kind": None, "differs": ""}
    try:
        loaded = READERS[reader](path)
        if compare and reader == "attention" and path.read_bytes()[:2] != b"\x1f\x8b":
            answer["differs"] = compare_with_pickle(path, loaded)
    except Exception as error:
        answer.update(error=str(error), kind=type(error).__name__)
    return {**answer, "seconds": time.process_time() - start}


def virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    compare = sys.argv[1] == "compare"
    if compare:
        import torch  # noqa: F401
    warnings.simplefilter("error")
    limit = virtual_memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps({"begun": task["name"]}), flush=True)
        # Either ends the process: too much work, however busy the machine is, or a wait for what never comes.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(30 * SECONDS)
        answer = read(task["reader"], Path(task["path"]), compare)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps({"name": task["name"], **answer}), flush=True)


main()
