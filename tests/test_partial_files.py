"""Temporary files: whose they are, and which are cleared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.storage.partial_files import partial_path, remove_dead_partial_files
from lab.storage.processes import FOREIGN_LIFETIME_S, Owner, is_running

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes cannot be looked up without harm")


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def place(directory: Path, owner: str, name: str = "row1.pkl.gz", age_s: float = 0) -> Path:
    path = directory / f".{name}.{owner}.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_a_living_process_writes_stays_whatever_its_target(tmp_path) -> None:
    path = partial_path(tmp_path / "row 1.pkl.gz")
    path.write_bytes(b"half")
    assert path.name.startswith(".row 1.pkl.gz.")
    assert remove_dead_partial_files(tmp_path) == 0
    assert path.exists()


def test_what_a_dead_process_left_goes_whatever_its_target(tmp_path, dead_pid) -> None:
    me = Owner.current()
    place(tmp_path, f"{Owner(me.machine, dead_pid, 5).tag}-0a1b2c3d")
    place(tmp_path, f"{Owner(me.machine, dead_pid, 0).tag}-0a1b2c3d", "run.json")
    (tmp_path / "row1.pkl.gz").write_bytes(b"whole")
    assert remove_dead_partial_files(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["row1.pkl.gz"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process started")
def test_a_later_process_of_the_same_number_is_not_taken_for_the_writer(tmp_path) -> None:
    me = Owner.current()
    place(tmp_path, f"{Owner(me.machine, me.pid, me.started + 1).tag}-0a1b2c3d")
    assert remove_dead_partial_files(tmp_path) == 1


@pytest.mark.parametrize(("age_s", "removed"), [(60, 0), (FOREIGN_LIFETIME_S + 60, 1)], ids=["young", "old"])
def test_files_of_other_machines_stay_for_a_day(tmp_path, age_s, removed) -> None:
    place(tmp_path, "00000000-1-2-0a1b2c3d", age_s=age_s)
    assert remove_dead_partial_files(tmp_path) == removed


def test_names_of_older_versions_are_known_too(tmp_path, dead_pid) -> None:
    living = place(tmp_path, f"{os.getpid()}-0af3")
    place(tmp_path, f"{dead_pid}-0af3")
    assert remove_dead_partial_files(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [living]


def test_foreign_names_and_missing_directories_are_left_alone(tmp_path) -> None:
    (tmp_path / ".download.part").write_bytes(b"x")
    assert remove_dead_partial_files(tmp_path) == 0
    assert remove_dead_partial_files(tmp_path / "none") == 0


def test_a_zombie_does_not_run() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # its end
    deadline = time.monotonic() + 600
    while is_running(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(process.pid)
    process.wait()
