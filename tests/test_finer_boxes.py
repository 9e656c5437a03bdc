"""The table of `benchmarks.finer_boxes`, on planted attention."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_collector import LOCALIZATION_HEADS, FakeCollector, write_rows
from test_pipeline import make_settings, result_dir

from benchmarks.finer_boxes import Row, Variant, main, measure, variants
from lab.heads.heads_file import FixedHead, HeadsFile, write_heads_file
from lab.records import Grid
from pipeline import run

GRID = Grid(4, 4, 0.0, 0.0, 10.0, 10.0)


def test_the_table_of_planted_rows(tmp_path, capsys) -> None:
    rows = write_rows(tmp_path, 6)
    run(make_settings(tmp_path, "batch", data_file=str(rows)), FakeCollector().load)
    heads = tmp_path / "heads.yaml"
    fixed = tuple(FixedHead(layer, head, 1.0) for layer, head in LOCALIZATION_HEADS)
    write_heads_file(heads, HeadsFile("fake/model", "referseg", 6, 4, fixed))
    options = ["--attention", str(result_dir(tmp_path)), "--dataset-jsonl", str(rows), "--heads", str(heads)]
    main([*options, "--sigma", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "6 rows; grid 8 x 8"
    assert "| whole cells | 1.000 | 1.000 | 1.000 |" in lines
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(variants(sweep=False))
    main([*options, "--sweep"])
    assert len(capsys.readouterr().out.splitlines()) == 4 + len(variants(sweep=True))
    broken = rows.with_name("broken.jsonl")
    broken.write_text(rows.read_text() + "{")
    with pytest.raises(ValueError, match="Expected line 7 of"):
        main([*options, "--dataset-jsonl", str(broken)])
    assert json.loads(rows.read_text().splitlines()[0])["id"] == "row0"


def test_contrast_is_with_rows_about_the_same_picture() -> None:
    shared, own = np.zeros((4, 4)), np.zeros((4, 4))
    shared[0, 0:2], own[2:4, 2:4] = 1.0, 0.2
    row = Row("a", shared + own, GRID, (40, 40), (20, 20, 40, 40))
    sibling = replace(row, combined_map=shared, truth_xyxy=(0, 0, 20, 10))
    stranger = replace(row, picture="b")
    plain = measure([row, stranger, sibling], Variant("plain", 0.5), "heaviest")
    contrasted = measure([row, stranger, sibling], Variant("contrast", 0.5, share=1.0), "heaviest")
    np.testing.assert_allclose(plain, [0, 0, 1])
    np.testing.assert_allclose(contrasted, [1, 0, 0])
