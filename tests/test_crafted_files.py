"""Files that others made, read in a child process: none crashes, hangs, takes a gigabyte or is read wrongly."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from crafted_files import all_crafted, good_files  # noqa: E402

ROOT = Path(__file__).parent.parent
MUTATIONS = 2_200
Answers = dict[str, dict[str, Any]]


def read_in_children(tasks: list[dict[str, str]], mode: str = "plain") -> Answers:
    """Read files one after the other; a file that ends its process is answered for, and the rest go to another."""
    answers: Answers = {}
    while tasks:
        lines = "".join(json.dumps(task) + "\n" for task in tasks)
        child = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("read_in_child.py")), mode],
            input=lines,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        begun = None
        for line in child.stdout.splitlines():
            answer = json.loads(line)
            begun = answer.get("begun", begun)
            if "name" in answer:
                answers[answer["name"]] = answer
        assert begun is not None, child.stderr[-2000:]
        answers.setdefault(begun, {"error": None, "kind": f"ended by {child.returncode}: {child.stderr[-500:]}"})
        tasks = [task for task in tasks if task["name"] not in answers]
    return answers


def write_tasks(directory: Path, contents: dict[str, tuple[str, bytes]]) -> list[dict[str, str]]:
    tasks = []
    for number, (name, (reader, data)) in enumerate(contents.items()):
        path = directory / f"{number}.pkl"
        path.write_bytes(data)
        tasks.append({"name": name, "reader": reader, "path": str(path)})
    return tasks


@pytest.fixture(scope="module")
def crafted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, dict[str, str]]:
    directory = tmp_path_factory.mktemp("crafted")
    tasks = write_tasks(directory, {name: (file.reader, file.data) for name, file in all_crafted().items()})
    answers = read_in_children(tasks)
    for path in directory.glob("*.pkl"):
        path.unlink()
    return answers, {task["name"]: task["path"] for task in tasks}


NAMES = list(all_crafted())
MESSAGES = {name: file.message for name, file in all_crafted().items()}


def test_there_are_many() -> None:
    assert len(NAMES) >= 80


@pytest.mark.parametrize("name", NAMES)
def test_crafted_files_end_in_one_line_that_names_the_file(crafted, name: str) -> None:
    answer, path = crafted[0][name], crafted[1][name]
    assert answer["kind"] == "ValueError", answer
    message = answer["error"]
    assert re.search(MESSAGES[name], message), message
    assert (path[:-4] if "run.json" in message else path) in message
    assert message.isprintable()
    assert len(message) < 700 + 2 * len(path)
    assert answer["seconds"] < 10


# Mutations


def mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(changed) + 1)
        span = rng.choice((1, 1, 2, 4, 16, 200))
        what = rng.randrange(7)
        if what == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            changed[at : at + 1] = bytes([(changed[at - 1] if changed else 0) ^ 1 << rng.randrange(8)])
        elif what == 2:
            del changed[at : at + span]
        elif what == 3:
            changed[at:at] = rng.randbytes(span)
        elif what == 4:
            source = rng.randrange(len(changed) + 1)
            changed[at:at] = changed[source : source + span]
        elif what == 5:
            changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
        else:
            del changed[at:]
    return bytes(changed) or b"\0"


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    rng = random.Random(9)
    seeds = good_files()
    names = list(seeds)
    contents = {}
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        reader, data = seeds[name]
        contents[f"{number} {name}"] = (reader, mutate(data, rng))
    return read_in_children(write_tasks(tmp_path_factory.mktemp("mutated"), contents), "compare")


def test_good_files_are_read(tmp_path: Path) -> None:
    answers = read_in_children(write_tasks(tmp_path, good_files()), "compare")
    assert {name: (answer["error"], answer["differs"]) for name, answer in answers.items()} == dict.fromkeys(
        good_files(), (None, "")
    )


def test_mutated_files_never_crash_hang_or_raise_what_names_no_file(mutated: Answers) -> None:
    assert len(mutated) == MUTATIONS
    bad = {name: answer for name, answer in mutated.items() if answer["kind"] not in (None, "ValueError")}
    assert not bad
    refused = [answer["error"] for answer in mutated.values() if answer["error"] is not None]
    assert len(refused) > MUTATIONS / 2
    assert all(message.isprintable() and ".pkl" in message or "run.json" in message for message in refused)


def test_mutated_files_that_are_read_are_read_as_pickle_reads_them(mutated: Answers) -> None:
    read = [answer for answer in mutated.values() if answer["error"] is None and answer["kind"] is None]
    assert len(read) > 50
    assert [answer for answer in read if answer["differs"]] == []
