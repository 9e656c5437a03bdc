"""What stands between a shell and the stages: quoting, streams, interrupts, warnings that repeat."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from command_line.interrupts import describe_work_in_hand, obey_interrupts
from command_line.progress import progress_bar
from command_line.quoting import quote_text_values
from command_line.repeats import count_repeated_warnings
from command_line.streams import ForgivingStream, explain_lost_output, forgiving_streams, say
from lab.storage.background import items_in_hand, map_in_background

KEYS = frozenset({"data.query", "data.save_id", "data.image_file"})

# Quoting


def read_by_hydra(argument: str) -> object:
    value = OverridesParser.create().parse_override(argument).value()
    return OmegaConf.create({"value": value}).value


@pytest.mark.parametrize(
    "query",
    ['"the bird"', "'the bird'", "${model.name}", "a ${x} b", "''", '"', "[a, b]", " a "],
    ids=["double", "single", "interpolation", "inside", "empty-quotes", "one-quote", "list", "blanks"],
)
@pytest.mark.parametrize("key", ["data.query", "+data.query", "++data.query"], ids=["set", "add", "force"])
def test_a_query_is_what_was_typed(key, query) -> None:
    [argument] = quote_text_values([f"{key}={query}"], KEYS)
    assert read_by_hydra(argument.lstrip("+")) == query


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("a,b", ["a", "b"]),
        ('a cat,the "red" (one)', ["a cat", 'the "red" (one)']),
        ("\"a cat, left\",'b, c'", ["a cat, left", "b, c"]),
        ("it's,x", ["it's", "x"]),
        ("${x},1e3,true", ["${x}", "1e3", "true"]),
        ('"stop" sign,x', ['"stop" sign', "x"]),
        ("choice(a,b)", ["a", "b"]),
    ],
    ids=["words", "sentences", "commas", "apostrophe", "typed", "part", "function"],
)
def test_in_a_sweep_commas_separate_and_all_else_is_what_was_typed(typed, values) -> None:
    _, argument = quote_text_values(["-m", f"data.query={typed}"], KEYS)
    override = OverridesParser.create().parse_override(argument)
    assert override.is_sweep_override()
    assert [read_by_hydra(f"data.query={value}") for value in override.sweep_string_iterator()] == values


def test_one_sentence_in_a_sweep_is_one_value() -> None:
    _, argument = quote_text_values(["--multirun", "data.query=the (red) one"], KEYS)
    assert read_by_hydra(argument) == "the (red) one"


# Streams


class Broken(io.StringIO):
    """A stream that takes some characters, then no more."""

    def __init__(self, error: Exception, room: int = 0) -> None:
        super().__init__()
        self.refusal, self.room, self.asked = error, room, 0

    def write(self, text: str) -> int:
        self.asked += 1
        if self.tell() + len(text) > self.room:
            raise self.refusal
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe"), ValueError("I/O on closed file")],
    ids=["full", "pipe", "closed"],
)
def test_a_stream_that_breaks_is_written_no_more(error) -> None:
    broken = Broken(error, room=5)
    stream = ForgivingStream(broken)
    for text in ("abc", "defg", "h"):
        assert stream.write(text) == len(text)
    stream.flush()
    assert (broken.getvalue(), broken.asked, stream.error) == ("abc", 2, error)
    assert not stream.isatty()


def test_a_stream_that_is_not_there_takes_everything() -> None:
    stream = ForgivingStream(None)
    stream.write("abc")
    stream.flush()
    assert (stream.error, stream.isatty(), stream.encoding) == (None, False, "utf-8")
    with pytest.raises(OSError, match="fileno"):
        stream.fileno()


def test_letters_that_a_stream_does_not_have_are_spelt_out() -> None:
    raw = io.BytesIO()
    stream = ForgivingStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("鳥 \ud800\n")
    stream.flush()
    assert (raw.getvalue(), stream.error) == (b"\\u9ce5 \\ud800\n", None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "could not be printed (No space left on device)"),
        (BrokenPipeError(32, "Broken pipe"), None),
    ],
    ids=["full", "pipe"],
)
def test_a_lost_summary_is_told_unless_its_reader_went_away(monkeypatch, error, words) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    with forgiving_streams() as (stdout, _):
        say(["a", "b"])
        told = explain_lost_output(stdout)
    assert (told is None) if words is None else (words in told)


def test_the_process_gets_its_streams_back(capsys) -> None:
    before = sys.stdout, sys.stderr, logging.raiseExceptions
    with forgiving_streams():
        say(["shown"])
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr, logging.raiseExceptions) == before
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.parametrize("stream", [None, Broken(OSError(28, "full"))], ids=["none", "full"])
def test_a_progress_bar_passes_on_what_it_counts(monkeypatch, stream) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(iter(range(50)), total=50, unit="row", label="test") as bar:
        assert list(bar) == list(range(50))


# Interrupts


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (0, "Stopping. Press Ctrl-C again to stop at once."),
        (1, "Stopping: finishing 1 row that is being written. Press Ctrl-C again to stop at once."),
        (7, "Stopping: finishing 7 rows that are being written. Press Ctrl-C again to stop at once."),
    ],
    ids=["none", "one", "seven"],
)
def test_what_is_finished_is_said(count, line) -> None:
    assert describe_work_in_hand(count) == line


def test_an_interrupt_finishes_what_was_begun_and_drops_what_waits(capfd) -> None:
    gate, begun, finished = threading.Event(), [], []

    def work(number: int) -> int:
        begun.append(number)
        assert gate.wait(600)
        finished.append(number)
        return number

    def items():
        yield from range(6)
        deadline = time.monotonic() + 600
        while items_in_hand() < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            signal.raise_signal(signal.SIGINT)  # says at once what is in hand
        finally:
            gate.set()

    with pytest.raises(KeyboardInterrupt), obey_interrupts(items_in_hand):
        list(map_in_background(work, items(), workers=2))
    assert sorted(begun) == sorted(finished) == [0, 1]
    assert "finishing 2 rows that are being written" in capfd.readouterr().err
    assert items_in_hand() == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_second_interrupt_does_not_wait(capfd) -> None:
    gate = threading.Event()

    def items():
        yield from range(2)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt), obey_interrupts(items_in_hand):
            list(map_in_background(lambda number: gate.wait(60), items(), workers=2))
        assert items_in_hand() > 0
    finally:
        gate.set()
    assert capfd.readouterr().err.count("Press Ctrl-C again") == 1


def test_whoever_obeys_interrupts_already_is_left_alone(monkeypatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with obey_interrupts(lambda: 0):
        handler = signal.getsignal(signal.SIGINT)
        assert handler is not before
        with obey_interrupts(lambda: 0):
            assert signal.getsignal(signal.SIGINT) is handler or signal.getsignal(signal.SIGINT) == handler
        assert signal.getsignal(signal.SIGINT) == handler
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_obey_nothing() -> None:
    seen = []

    def work() -> None:
        with obey_interrupts(lambda: 0):
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


# Warnings that repeat


@pytest.fixture
def console():
    """What a console handler of the root logger shows."""
    handler = logging.StreamHandler(io.StringIO())
    logging.root.addHandler(handler)
    yield handler.stream
    logging.root.removeHandler(handler)


def test_many_equal_warnings_are_shown_thrice_and_counted(console) -> None:
    logger = logging.getLogger("tests.repeats")
    with count_repeated_warnings():
        for number in range(20):
            logger.warning("%s holds no grid: assumed %s.", number, "8 x 8")
        logger.warning("another")
    assert console.getvalue().splitlines() == [
        "0 holds no grid: assumed 8 x 8.",
        "1 holds no grid: assumed 8 x 8.",
        "2 holds no grid: assumed 8 x 8.",
        "another",
        "17 more warnings like '0 holds no grid: assumed 8 x 8.' were left out.",
    ]


def test_few_warnings_are_all_shown(console) -> None:
    with count_repeated_warnings():
        for number in range(3):
            logging.getLogger("tests.repeats").warning("%d", number)
    assert console.getvalue() == "0\n1\n2\n"
