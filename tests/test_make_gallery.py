"""The gallery of one's own batch: which rows it shows, and that failures are among them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from evaluate_boxes import SampleScore
from examples import make_gallery

IOUS = (0.9, 0.0, 0.5, 0.7, 0.0, 0.3)


def score(number, iou):
    return SampleScore(str(number), number + 1, "", "box", iou, (0.0, 0.0, 10.0, 10.0), None)


SCORES = [score(number, iou) for number, iou in enumerate(IOUS)]


@pytest.mark.parametrize(
    ("select", "count", "ids"),
    [
        ("worst", 3, ["1", "4", "5"]),
        ("best", 3, ["0", "3", "2"]),
        ("spread", 3, ["0", "2", "4"]),
        ("spread", 1, ["0"]),
        ("best", 99, ["0", "3", "2", "5", "1", "4"]),
    ],
    ids=["worst", "best", "spread", "spread-of-one", "all"],
)
def test_rows_are_chosen_by_iou_and_equal_ones_keep_their_order(select, count, ids):
    assert [chosen.id for chosen in make_gallery.choose_scores(SCORES, select, count)] == ids


def test_random_rows_depend_on_the_seed_alone_and_keep_the_order_of_the_file():
    many = [score(number, 0.5) for number in range(50)]
    chosen = [chosen.id for chosen in make_gallery.choose_scores(many, "random", 5, seed=3)]
    assert chosen == [chosen.id for chosen in make_gallery.choose_scores(many, "random", 5, seed=3)]
    assert chosen != [chosen.id for chosen in make_gallery.choose_scores(many, "random", 5, seed=4)]
    assert chosen == sorted(set(chosen), key=int)
    assert len(chosen) == 5


@pytest.fixture
def batch(tmp_path):
    """Three rows: a hit, a miss, and one without a result."""
    predictions = tmp_path / "out"
    predictions.mkdir()
    Image.new("RGB", (40, 40), "green").save(tmp_path / "a.png")
    rows = [
        {"id": name, "prompt": f"the {name}", "image_path": "a.png", "bbox": [0, 0, 20, 20]}
        for name in ("hit", "miss", "missing")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, box in (("hit", [0, 0, 20, 20]), ("miss", [30, 30, 40, 40])):
        record = {"id": name, "bbox_xyxy": box, "image_size": [40, 40]}
        (predictions / f"{name}_bbox.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path


def run(batch, *more, output="gallery.png"):
    given = ["--dataset-jsonl", str(batch / "rows.jsonl"), "--pred-root", str(batch / "out")]
    return make_gallery.main([*given, "--output", str(batch / output), *more])


def test_command_draws_failures_too(batch, monkeypatch, capsys):
    drawn = []
    draw = make_gallery.draw_gallery

    def remember(*arguments, **options):
        drawn.append(draw(*arguments, **options))

    monkeypatch.setattr(make_gallery, "draw_gallery", remember)
    assert run(batch, "--select", "worst", "--count", "2") == 0
    texts = [text.get_text() for text in drawn[0].texts]
    assert {"the miss", "IoU 0.00, miss", "the missing", "no box, miss"} <= set(texts)
    assert "the hit" not in texts
    assert texts[0] == "2 of 3 rows: the lowest IoU first"
    assert texts[1] == "Acc@0.5 of all 3 rows 33.3% · a miss has an IoU below 0.5"
    assert Image.open(batch / "gallery.png").width > 300
    assert capsys.readouterr().out.startswith("2 of 3 rows: the lowest IoU first; written to ")


@pytest.mark.parametrize(
    ("more", "output", "message"),
    [
        (("--count", "0"), "g.png", "error: Expected --count to be at least 1, but got 0."),
        ((), "g.eps", "error: Expected the path of a figure to end in .png, .pdf or .svg"),
        (("--prompt-field", "query"), "g.png", "error: Expected row 1 to have a prompt and an image that exists"),
    ],
    ids=["count", "suffix", "prompt"],
)
def test_what_cannot_be_drawn_is_one_line(batch, capsys, more, output, message):
    assert run(batch, *more, output=output) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (batch / output).exists()
