"""Clocks, memory, rows of the table, and a description of the machine."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "numpy", "scipy")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: Benchmark that it belongs to.
        what: What was measured.
        here: What this tool takes.
        unit: Unit of `here` and `baseline`.
        baseline: What the plain way takes, measured in the same run; None where there is none.
        more_is_better: True for rates, False for times and memory.
        difference: Largest absolute difference between the results of both ways.
        tolerance: The difference must not be larger.
        note: Anything else worth reading.
        details: Plain data for the JSON output.
    """

    case: str
    what: str
    here: float
    unit: str
    baseline: Optional[float] = None
    more_is_better: bool = False
    difference: Optional[float] = None
    tolerance: Optional[float] = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> Optional[float]:
        """How many times as good as the baseline."""
        if self.baseline is None:
            return None
        return self.here / self.baseline if self.more_is_better else self.baseline / self.here

    @property
    def is_equal(self) -> bool:
        """Whether both ways gave the same result; true where nothing was compared."""
        if self.difference is None or self.tolerance is None:
            return True
        return self.difference <= self.tolerance  # false for NaN, too

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "ratio": self.ratio, "is_equal": self.is_equal}


# Time -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How long a function took.

    Attributes:
        seconds: Wall time of each repeat.
        cpu_seconds: Time of the processor, all threads of this process together; steady on a busy machine.
        result: What it returned the last time.
    """

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    result: Any

    @property
    def median(self) -> float:
        """Median of the wall times, in seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_median(self) -> float:
        """Median of the processor times, in seconds."""
        return statistics.median(self.cpu_seconds)


def time_in_turn(*functions: Callable[[], Any], repeats: int, warm_up: bool = True) -> list[Timing]:
    """Time functions one after the other, again and again, so that a drift of the machine hits all of them.

    Args:
        functions: Called without arguments.
        repeats: Number of timed calls of each.
        warm_up: Whether each is called once before.

    Returns:
        One timing for each function.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    cpu_seconds: list[list[float]] = [[] for _ in functions]
    results: list[Any] = [function() if warm_up else None for function in functions]
    for _ in range(repeats):
        for index, function in enumerate(functions):
            results[index] = None  # so that an old result does not burden the next call
            gc.collect()
            started, cpu_started = time.perf_counter(), time.process_time()
            results[index] = function()
            cpu_seconds[index].append(time.process_time() - cpu_started)
            seconds[index].append(time.perf_counter() - started)
    return [Timing(tuple(wall), tuple(cpu), result) for wall, cpu, result in zip(seconds, cpu_seconds, results)]


# Memory ---------------------------------------------------------------------------------------------------------------


class PeakMemory:
    """Peak of this process's resident memory since the object was made.

    Where the kernel cannot forget an earlier peak (anywhere but on Linux), an earlier one counts, too.
    """

    def __init__(self) -> None:
        """Forget the peak so far."""
        gc.collect()
        self._is_reset = _forget_peak()
        self.start_mb = _status_mb("VmRSS") if self._is_reset else _max_rss_mb()

    @property
    def peak_mb(self) -> float:
        """Peak, in megabytes."""
        return _status_mb("VmHWM") if self._is_reset else _max_rss_mb()

    @property
    def added_mb(self) -> float:
        """Peak above what was there at the start, in megabytes."""
        return self.peak_mb - self.start_mb


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _status_mb(key: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / MEGABYTE if found else _max_rss_mb()


def _max_rss_mb() -> float:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


# Processes ------------------------------------------------------------------------------------------------------------


def run_python(*arguments: str, threads: Optional[int] = None) -> subprocess.CompletedProcess[str]:
    """Run the interpreter in the project's root, and fail with its last words if it does."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"`python {' '.join(arguments)}` failed:\n{done.stderr[-2000:]}")
    return done


def run_child(workload: str, *, threads: Optional[int] = None, **arguments: Any) -> dict[str, Any]:
    """Run a workload of `benchmarks.child` in a process of its own, and return what it reports."""
    done = run_python("-m", "benchmarks.child", workload, json.dumps(arguments), threads=threads)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


# Machine --------------------------------------------------------------------------------------------------------------


def describe_machine() -> dict[str, Any]:
    """What the numbers were measured on: processor, cores, threads, GPU, versions, date and load."""
    import torch

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or "unknown"


def format_machine(machine: dict[str, Any]) -> str:
    """One line for people."""
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} torch threads",
        f"GPU {machine['gpu']}" if machine["gpu"] else "no GPU",
        f"Python {machine['python']}",
        *(f"{name} {machine[name]}" for name in PACKAGES),
        f"load {machine['load_average']} at the start",
        machine["date"],
    ]
    return "; ".join(parts)


# Table ----------------------------------------------------------------------------------------------------------------


def format_rows(rows: Sequence[Row]) -> str:
    """A Markdown table with aligned columns."""
    lines = [["benchmark", "measured", "plain", "here", "ratio", "max abs difference", "note"]]
    lines += [_cells(row) for row in rows]
    numeric = [False, False, True, True, True, True, False]
    widths = [max(len(line[column]) for line in lines) for column in range(len(numeric))]
    ruler = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric)]
    return "\n".join(_line(line, widths, numeric) for line in [lines[0], ruler, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric)]
    return f"| {' | '.join(padded)} |"


def _cells(row: Row) -> list[str]:
    difference = "" if row.difference is None else f"{row.difference:.1e}" + ("" if row.is_equal else " UNEQUAL")
    return [
        row.case,
        row.what,
        "" if row.baseline is None else f"{format_number(row.baseline)} {row.unit}",
        f"{format_number(row.here)} {row.unit}",
        "" if row.ratio is None else f"{format_number(row.ratio)}x",
        difference,
        row.note,
    ]


def format_number(value: float) -> str:
    """Three digits, never in scientific notation."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
