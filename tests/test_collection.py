"""The names of the tests are the same in every process: they hold no time, address, set order or temporary path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def collected_names(hash_seed: str, temporary: Path, folder: Path = ROOT, what: str = "tests") -> list[str]:
    """Collect in a process of its own, and give the names in order."""
    temporary.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TMPDIR": str(temporary)}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:randomly", what]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_two_collections_in_different_seconds_give_the_same_names(tmp_path: Path) -> None:
    first = collected_names("1", tmp_path / "first")
    second_of_first = int(time.time())
    while int(time.time()) == second_of_first:
        time.sleep(0.05)
    second = collected_names("2", tmp_path / "second")
    assert len(first) > 500
    assert [pair for pair in zip(first, second) if pair[0] != pair[1]] == []
    assert len(first) == len(second)
    assert len(set(first)) == len(first)
    assert [name for name in first if re.search(r"0x[0-9a-f]{8}|[\x00-\x1f]", name)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    ["[str(time.time())]", "[str(object())]", "sorted({'a', 'b', 'c', 'd'}, key=hash)", "[tempfile.mkdtemp()]"],
    ids=["time", "address", "order", "path"],
)
def test_the_comparison_sees_names_that_differ(values: str, tmp_path: Path) -> None:
    code = f"import pytest, tempfile, time\n@pytest.mark.parametrize('x', {values})\ndef test_it(x): pass\n"
    (tmp_path / "test_it.py").write_text(code)
    names = [collected_names(seed, tmp_path / seed, tmp_path, "test_it.py") for seed in ("1", "2", "3")]
    assert len({tuple(found) for found in names}) > 1
