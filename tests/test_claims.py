"""Rows that a run holds while it makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.storage import claims
from lab.storage.claims import claim_rows, living_runs, one_run_at_a_time
from lab.storage.processes import Owner

ROOT = Path(__file__).parent.parent
HOLDER = """
import sys
from pathlib import Path
from lab.storage.claims import claim_rows
with claim_rows(Path(sys.argv[1]), sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Give a function that starts a process which holds rows until it is killed."""
    processes = []

    def start(*names: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), *names]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_rows_that_another_run_holds_are_refused_by_process_host_and_time(tmp_path, hold) -> None:
    process = hold("a", "b")
    words = rf"process {process.pid} on .+, at work since \d{{4}}-\d\d-\d\d .*with 1 of these 2 rows"
    with pytest.raises(ValueError, match=words), claim_rows(tmp_path, ["b", "c"]):
        pass
    with claim_rows(tmp_path, ["c", "d"]):
        assert len(living_runs(tmp_path)) == 2


def test_a_claim_ends_with_its_block_and_with_its_process(tmp_path, hold) -> None:
    process = hold("a")
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with claim_rows(tmp_path, ["a"]):
        assert [run.pid for run in living_runs(tmp_path)] == [os.getpid()]
    assert list(tmp_path.iterdir()) == []


def test_two_claims_of_one_process_exclude_each_other(tmp_path) -> None:
    refused = pytest.raises(ValueError, match="1 of these 1 rows")
    with claim_rows(tmp_path, ["a"]), refused, claim_rows(tmp_path, ["a"]):
        pass


@pytest.fixture
def without_locks(monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor, operation):
        raise OSError(38, "Function not implemented")

    claims._say_once_that_nothing_is_locked.cache_clear()
    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_the_process_is_looked_for(tmp_path, hold, without_locks) -> None:
    process = hold("a")
    with pytest.raises(ValueError, match=f"process {process.pid}"), claim_rows(tmp_path, ["a"]):
        pass
    process.kill()
    process.wait()
    with claim_rows(tmp_path, ["a"]):
        pass


def test_without_locks_a_claim_of_another_machine_counts(tmp_path, without_locks) -> None:
    with claim_rows(tmp_path, ["a"]):
        [path] = tmp_path.iterdir()
        content = path.read_bytes()
    foreign = Owner("00000000", 1, 2)
    (tmp_path / f".run-{foreign.tag}-0a1b2c3d.lock").write_bytes(content)
    with pytest.raises(ValueError, match="if it is certainly gone, delete"), claim_rows(tmp_path, ["a"]):
        pass


def test_that_there_are_no_locks_is_said_once(tmp_path, without_locks, caplog) -> None:
    for _ in range(3):
        with one_run_at_a_time(tmp_path):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "The file system of the results has no locks (Function not implemented): let no two runs share a directory."
    ]


def test_a_claim_that_is_damaged_stands_in_nobodys_way(tmp_path) -> None:
    (tmp_path / ".run-x.lock").write_bytes(b"{")
    with claim_rows(tmp_path, ["a"]):
        pass
