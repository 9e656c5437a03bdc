"""What a batch leaves for the next run, when several runs share a directory."""

from __future__ import annotations

import json
import threading

import pytest

from lab.datasets.rows import RowFailure
from lab.storage import run_state
from lab.storage.run_state import FailureLog


def lines(directory):
    text = (directory / "failures.jsonl").read_text()
    return [(row["data_file"], row["line"]) for row in map(json.loads, text.splitlines())]


def test_only_the_lines_that_are_tried_again_are_forgotten(tmp_path):
    ours, theirs = FailureLog(tmp_path, "a.jsonl"), FailureLog(tmp_path, "b.jsonl")
    ours.forget([1, 2])  # nothing there yet
    for number in (1, 2):
        ours.add(RowFailure(number, "x", "broken"))
        theirs.add(RowFailure(number, "x", "broken"))
    ours.forget([1, 7])
    assert sorted(lines(tmp_path)) == [("a.jsonl", 2), ("b.jsonl", 1), ("b.jsonl", 2)]
    ours.forget([2])
    theirs.forget([1, 2])
    assert not (tmp_path / "failures.jsonl").exists()


def test_a_failure_that_another_run_records_meanwhile_is_not_lost(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    ours, theirs = FailureLog(tmp_path, "a.jsonl"), FailureLog(tmp_path, "a.jsonl")
    ours.add(RowFailure(1, "x", "broken"))
    other_run = threading.Thread(target=theirs.add, args=(RowFailure(9, "y", "broken"),))
    genuine = run_state.read_jsonl

    def read_while_another_run_writes(path):
        rows = list(genuine(path))
        other_run.start()
        other_run.join(0.2)
        return rows

    monkeypatch.setattr(run_state, "read_jsonl", read_while_another_run_writes)
    ours.forget([1])
    other_run.join()
    assert lines(tmp_path) == [("a.jsonl", 9)]
