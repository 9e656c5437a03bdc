"""Whole processes: streams that cannot be written, Ctrl-C, runs that meet. No result is ever lost to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_collector import write_rows

# Without attention files a process need not import torch.
BOXES_ONLY = ("storage.attention.save=false",)
ROOT = Path(__file__).parent.parent
PATIENCE_S = 240
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and descriptors of POSIX")]


class Runner:
    """Starts the command line, over a fake collector, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen] = []
        self.results = directory / "out" / "liuhaotian-llava-v1.5-7b"

    def command(self, *arguments: str) -> list[str]:
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        return [
            sys.executable,
            str(ROOT / "tests/command_line_with_fake.py"),
            "data.output_dir=out",
            *arguments,
            *quiet,
        ]

    def batch(self, count: int, *arguments: str) -> list[str]:
        write_rows(self.directory, count)
        return self.command("stage=batch", "data.data_file=rows.jsonl", "logic.smoothing.sigma=0", *arguments)

    def start(self, command: list[str], environment: dict[str, str] | None = None, **streams) -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(environment or {})}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        process = subprocess.Popen(command, cwd=self.directory, env=variables, **streams)
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, (out or b"").decode("utf-8", "replace"), (err or b"").decode("utf-8", "replace")

    def run(self, command: list[str], environment: dict[str, str] | None = None, **streams) -> tuple[int, str, str]:
        return self.finish(self.start(command, environment, **streams))

    def done(self) -> set[str]:
        return {path.name[: -len("_bbox.json")] for path in self.results.glob("*_bbox.json")}


@pytest.fixture
def runner(tmp_path):
    runner = Runner(tmp_path)
    yield runner
    for process in runner.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "the process ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def shell(command: list[str], redirection: str) -> list[str]:
    return ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]


ROWS = {f"row{number}" for number in range(5)}


# Standard error


@pytest.mark.parametrize("way", ["closed", "full", "pipe"])
def test_a_progress_bar_that_cannot_be_written_costs_no_result(runner, way) -> None:
    command = runner.batch(5)
    if way == "pipe":
        end = broken_pipe()
        status, out, _ = runner.run(command, stderr=end)
        os.close(end)
    else:
        status, out, _ = runner.run(shell(command, {"closed": "2>&-", "full": "2>/dev/full"}[way]))
    assert runner.done() == ROWS
    assert "5 done now" in out
    assert status == 0


@pytest.mark.parametrize("way", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
def test_stages_that_are_called_from_a_program_forgive_too(runner, way) -> None:
    rows = write_rows(runner.directory, 5)
    script = [sys.executable, str(ROOT / "tests/batch_to_be_killed.py"), str(rows), "out", "0", "1"]
    assert runner.run(shell(script, way))[0] == 0
    assert len(list((runner.directory / "out/fake-model").glob("*_bbox.json"))) == 5


# Standard output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_a_small_alphabet_shows_what_it_can(runner, encoding) -> None:
    write_rows(runner.directory, 1)
    single = ["data.image_file=image0.png", "data.query=鳥 – bird", "data.save_id=s"]
    status, out, err = runner.run(runner.command(*single), {"PYTHONIOENCODING": encoding})
    assert (status, err) == (0, "")
    assert r"\u9ce5" in out
    assert runner.done() == {"s"}


@pytest.mark.parametrize("way", ["closed", "full", "pipe"])
def test_a_summary_that_cannot_be_printed_is_no_failed_run(runner, way) -> None:
    write_rows(runner.directory, 1)
    command = runner.command("data.image_file=image0.png", "data.query=a", "data.save_id=s")
    if way == "pipe":
        end = broken_pipe()
        status, _, err = runner.run(command, stdout=end)
        os.close(end)
    else:
        status, _, err = runner.run(shell(command, {"closed": ">&-", "full": ">/dev/full"}[way]))
    lost = "The summary could not be printed (No space left on device); the results are not touched by that.\n"
    assert (status, err) == (0, lost if way == "full" else "")
    assert runner.done() == {"s"}


# Ctrl-C


def in_hand(runner: Runner) -> int:
    """Number of rows whose writing has begun and waits at the gate."""
    return len(list(runner.directory.glob("gate-*")))


def start_before_the_gate(runner: Runner, command: list[str]) -> tuple[subprocess.Popen, Path]:
    gate, stderr = runner.directory / "gate", runner.directory / "stderr.txt"
    with open(stderr, "wb") as file:
        process = runner.start(command, {"FAKE_GATE": str(gate)}, stderr=file)
    wait_for(lambda: in_hand(runner) == 2, process)
    return process, stderr


def test_ctrl_c_says_at_once_what_it_finishes_and_finishes_it(runner) -> None:
    process, stderr = start_before_the_gate(runner, runner.batch(20, "storage.workers=2"))
    process.send_signal(signal.SIGINT)
    wait_for(
        lambda: "Stopping: finishing 2 rows that are being written. Press Ctrl-C again" in stderr.read_text(), process
    )
    assert runner.done() == set()
    (runner.directory / "gate").touch()
    assert process.wait(PATIENCE_S) == 130
    assert runner.done() == {"row0", "row3"}  # of one picture
    assert "Stopped. The same command goes on where it was." in stderr.read_text()
    assert "Traceback" not in stderr.read_text()
    assert not list(runner.results.glob(".*"))


def test_a_second_ctrl_c_stops_at_once_and_the_next_run_clears_up(runner) -> None:
    command = runner.batch(20, "storage.workers=2")
    process, stderr = start_before_the_gate(runner, command)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Press Ctrl-C again" in stderr.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130  # though the gate is shut
    assert runner.done() == set()
    assert runner.run(command)[0] == 0
    assert len(runner.done()) == 20
    assert not list(runner.results.glob(".*"))


def test_a_single_run_does_not_promise_to_go_on(runner) -> None:
    write_rows(runner.directory, 1)
    command = runner.command("data.image_file=image0.png", "data.query=a", "data.save_id=s")
    gate, stderr = runner.directory / "gate", runner.directory / "stderr.txt"
    with open(stderr, "wb") as file:
        process = runner.start(command, {"FAKE_GATE": str(gate)}, stderr=file)
    wait_for(lambda: in_hand(runner) == 1, process)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "finishing 1 row that is being written" in stderr.read_text(), process)
    gate.touch()
    assert process.wait(PATIENCE_S) == 130
    assert stderr.read_text().strip().endswith("\nStopped.")


# Runs that meet


def test_a_second_run_over_the_same_rows_is_told_who_is_at_work_and_stops_before_it_loads(runner) -> None:
    command = runner.batch(6, "storage.workers=2")
    first, _ = start_before_the_gate(runner, command)
    before = {path.name for path in runner.results.iterdir()}
    loaded = runner.directory / "loaded"
    status, _, err = runner.run([*command, "data.start_index=4"], {"FAKE_LOADED": str(loaded)})
    assert status == 1
    assert f"process {first.pid} on " in err
    assert "with 2 of these 2 rows. Wait until it is done" in err
    assert not loaded.exists()
    assert {path.name for path in runner.results.iterdir()} == before
    (runner.directory / "gate").touch()
    assert runner.finish(first)[0] == 0
    assert len(runner.done()) == 6


def test_runs_with_different_rows_share_a_directory(runner) -> None:
    command = runner.batch(6, "storage.workers=2")
    first, _ = start_before_the_gate(runner, [*command, "data.end_index=4"])
    status, out, _ = runner.run([*command, "data.start_index=4"])
    assert (status, "2 done now" in out) == (0, True)
    (runner.directory / "gate").touch()
    assert runner.finish(first)[0] == 0
    assert len(runner.done()) == 6


def test_settings_do_not_change_under_a_run_that_is_at_work(runner) -> None:
    command = runner.batch(6, "storage.workers=2")
    first, _ = start_before_the_gate(runner, [*command, "data.end_index=4"])
    status, _, err = runner.run([*command, "data.start_index=4", "data.overwrite=true", "logic.top_k=2"])
    assert status == 1
    assert f"while its settings change, but got process {first.pid}" in err
    (runner.directory / "gate").touch()
    assert runner.finish(first)[0] == 0


def test_a_killed_run_holds_nothing(runner) -> None:
    command = runner.batch(6, "storage.workers=2")
    first, _ = start_before_the_gate(runner, command)
    first.kill()
    first.wait()
    assert runner.run(command)[0] == 0
    assert len(runner.done()) == 6
    assert not list(runner.results.glob(".*"))


def test_a_directory_that_is_removed_meanwhile_is_an_error(runner) -> None:
    first, stderr = start_before_the_gate(runner, runner.batch(30, "storage.workers=2"))
    moved = runner.directory / "moved"
    runner.results.rename(moved)
    (runner.directory / "gate").touch()
    assert first.wait(PATIENCE_S) == 1
    assert "to stay while a run fills it, but got it removed or replaced" in stderr.read_text()
    assert "Traceback" not in stderr.read_text()


# Queries


@pytest.mark.parametrize("query", ['"the bird"', "${model.name}", "'a', \"b\""], ids=["quotes", "braces", "both"])
def test_a_query_reaches_the_model_as_typed(runner, query) -> None:
    write_rows(runner.directory, 1)
    command = runner.command("data.image_file=image0.png", f"data.query={query}", "data.save_id=s")
    assert runner.run(command)[0] == 0
    assert json.loads((runner.results / "s_bbox.json").read_text())["query"] == query
