"""The benchmarks run at their smallest sizes, and what they compare is equal; nothing here looks at a clock."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import child, collecting, host, run
from benchmarks.baseline import analyze_plain, read_plain, score_plain
from benchmarks.context import Context, Skipped
from benchmarks.inputs import make_attention, make_samples, write_attention_files, write_pictures, write_predictions
from benchmarks.measure import PROJECT_ROOT, PeakMemory, Row, format_rows, time_in_turn
from benchmarks.models import TINY, random_bundle
from collector import AttentionCollector
from lab.storage.attention_files import load_attention

SMALL = (4, 4, 8, 8)


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(TINY, "tiny")


@pytest.fixture
def samples(tmp_path):
    return make_samples(write_pictures(tmp_path, 2, (80, 60)), 3)


# The baseline is right -----------------------------------------------------------------------------------------------


def test_plain_score_of_two_equal_blobs_is_ln_2():
    attention_map = np.zeros((8, 8), np.float32)
    attention_map[1:3, 1:3] = attention_map[5:7, 5:7] = 0.1
    score = score_plain(attention_map, 3, 1)
    assert (score.num_components, score.bottom_row_focus) == (2, False)
    assert score.entropy == pytest.approx(math.log(2))
    assert score.attn_sum == pytest.approx(0.8)


def test_plain_score_sees_the_bottom_row_and_the_empty_map():
    attention_map = np.zeros((8, 8), np.float32)
    assert score_plain(attention_map, 0, 0).entropy == math.inf
    attention_map[-1, 2:5] = 0.1
    assert score_plain(attention_map, 0, 0).bottom_row_focus


def test_plain_reading_equals_the_tools(tmp_path):
    [path] = write_attention_files(tmp_path, 1, SMALL)
    assert np.array_equal(read_plain(path), load_attention(path).attention)


# What is compared is equal -------------------------------------------------------------------------------------------


def test_collectors_equal_the_baseline(bundle, samples):
    collectors = [AttentionCollector(bundle), AttentionCollector(bundle, stop_layer=1)]
    compared = collecting.compare(bundle, collectors, samples, collecting.Load(images=2, plain_rows=5, repeats=1))
    assert max(compared.differences) <= collecting.TOLERANCE["float32"]
    assert min(compared.plain_rate, *compared.rates, *compared.cpu_ratios) > 0


def test_random_attention_is_uneven_enough_to_compare(bundle, samples):
    [attention] = [collecting.attention_of(result) for result in AttentionCollector(bundle).collect(samples[:1])]
    assert attention.max() > 5 * attention.mean()


def test_difference_of_collectors_is_seen(bundle, samples):
    class Wrong(AttentionCollector):
        def collect(self, samples):
            return super().collect(reversed(list(samples)))

    load = collecting.Load(images=1, plain_rows=6, repeats=1)
    compared = collecting.compare(bundle, [Wrong(bundle)], samples, load)
    assert compared.differences[0] > collecting.TOLERANCE["float32"]


@pytest.mark.parametrize("smoothness", [0.0, 1.0])
def test_analysis_equals_the_baseline(smoothness):
    attention = make_attention(0, SMALL, smoothness)
    plain = analyze_plain(attention, SMALL[2:])
    table, ranked = host.analyze_here(attention, SMALL[2:])
    assert ranked
    assert host.analysis_difference(table, ranked, *plain) <= host.TOLERANCE
    assert host.analysis_difference(table, ranked[::-1], *plain) == math.inf
    other = make_attention(1, SMALL, smoothness)
    assert host.analysis_difference(table, ranked, *analyze_plain(other, SMALL[2:])) > host.TOLERANCE


# The rest runs -------------------------------------------------------------------------------------------------------


def test_queries_per_second_gives_a_row_for_each_count_and_stop(bundle, tmp_path):
    context, load = Context(tmp_path, quick=True), collecting.Load(images=1, plain_rows=1, repeats=1)
    rows = list(collecting.queries_per_second("tiny", bundle, load, context, stop_layers=(None, 1)))
    assert [row.details["queries_per_image"] for row in rows] == [1, 1, 2, 2]
    assert all(row.is_equal for row in rows)


def test_missing_model_and_gpu_are_skipped(monkeypatch, tmp_path):
    monkeypatch.setattr(collecting, "PICTUREBOOK", tmp_path / "a" / "b" / "c")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(Skipped, match="picture-book model is not at"):
        next(collecting.measure_picturebook(Context(tmp_path)))
    with pytest.raises(Skipped, match="no CUDA"):
        next(collecting.measure_7b(Context(tmp_path)))


@pytest.mark.parametrize("save_attention", [True, False])
def test_busy_share_counts_the_model_and_leaves_no_hook(bundle, samples, tmp_path, save_attention):
    share, seconds = collecting.busy_share(bundle, samples, tmp_path, save_attention=save_attention)
    assert 0 < share <= 1
    assert seconds > 0
    assert len(list(tmp_path.rglob("*_bbox.json"))) == len(samples)
    assert bool(list(tmp_path.rglob("*.pkl.gz"))) == save_attention
    assert not bundle.model.model._forward_hooks


def test_busy_clock_counts_nested_modules_once(monkeypatch):
    ticks = iter([1.0, 5.0])
    monkeypatch.setattr(collecting.time, "perf_counter", lambda: next(ticks))
    clock = collecting.BusyClock()
    clock.start(), clock.start(), clock.stop(), clock.stop()
    assert clock.seconds == 4.0


def test_children_report_time_and_memory(tmp_path):
    write_attention_files(tmp_path, 2, (4, 4, 8, 8))
    for report in (child.batch(rows=3), child.batch_analyze(str(tmp_path))):
        assert set(report) == {"seconds", "peak_mb", "added_mb"}
        assert report["peak_mb"] >= report["added_mb"]


def test_predictions_are_what_the_evaluation_reads(tmp_path):
    from evaluate_boxes import evaluate

    report = evaluate(*write_predictions(tmp_path, 20))
    assert report.count("box") == 20
    assert report.overall.mean_iou > 0.5


def test_import_of_torch_is_seen(tmp_path):
    (tmp_path / "torch.py").touch()
    assert host.imports_torch(["-c", "import json"]) is False
    assert host.imports_torch(["-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch"]) is True


# Measuring and reporting ---------------------------------------------------------------------------------------------


def test_peak_memory_sees_what_was_freed_again():
    memory = PeakMemory()
    block = np.ones(50_000_000, np.uint8)
    del block
    assert memory.added_mb > 45


def test_functions_take_turns():
    calls = []
    timings = time_in_turn(lambda: calls.append("a"), lambda: calls.append("b") or 7, repeats=2)
    assert "".join(calls) == "ababab"
    assert [len(timing.seconds) for timing in timings] == [2, 2]
    assert timings[1].result == 7


def test_ratio_is_above_one_where_the_tool_is_better():
    assert Row("c", "rate", 30.0, "queries/s", 2.0, more_is_better=True).ratio == 15
    assert Row("c", "time", 2.0, "ms", 30.0).ratio == 15
    assert Row("c", "time", 2.0, "ms").ratio is None


def test_table_is_aligned_markdown_and_marks_what_is_unequal():
    good = Row("c", "a", 1234.5, "ms", 2.0, difference=1e-7, tolerance=1e-5)
    bad = Row("c", "longer", 0.5, "ms", difference=math.nan, tolerance=1e-5)
    lines = format_rows([good, bad]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) <= set("|-: ")
    assert "1,234 ms" in lines[2]
    assert "UNEQUAL" not in lines[2]
    assert "UNEQUAL" in lines[3]


def fake(rows=(), reason=None):
    def measure(context):
        yield from rows
        if reason:
            raise Skipped(reason)

    return measure


def test_command_prints_writes_json_and_says_what_it_skipped(monkeypatch, tmp_path, capsys):
    row = Row("one", "what", 3.0, "ms", 30.0, difference=0.0, tolerance=1e-5)
    monkeypatch.setattr(run, "BENCHMARKS", {"one": fake([row]), "two": fake(reason="it is not there")})
    path = tmp_path / "new" / "out.json"
    assert run.main(["--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "| one " in printed
    assert "Skipped two: it is not there." in printed
    content = json.loads(path.read_text())
    assert content["rows"][0]["ratio"] == 10
    assert content["skipped"] == {"two": "it is not there"}
    assert {"cpu", "cores", "torch", "transformers", "torch_threads", "date"} <= set(content["machine"])


def test_command_fails_where_results_differ(monkeypatch, capsys):
    row = Row("one", "what", 3.0, "ms", 30.0, difference=1.0, tolerance=1e-5)
    monkeypatch.setattr(run, "BENCHMARKS", {"one": fake([row])})
    assert run.main([]) == 1
    assert "NOT EQUAL to the baseline: what." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--only", "toy,tpy"], "but got 'tpy'"), (["--threads", "0"], "at least 1"), (["--quick", "--full"], "allowed")],
)
def test_wrong_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        run.parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_script_starts_from_anywhere(tmp_path):
    script = str(PROJECT_ROOT / "benchmarks" / "run.py")
    done = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--only" in done.stdout
    assert not list(Path(tmp_path).iterdir())
