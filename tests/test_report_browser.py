"""The report in a real browser: nothing is asked of the network, nothing fails, boxes move as `bbox.py` says."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from report_samples import HEADS, HOSTILE, LAYERS, RANKED, RULES, SIZE_WH, USED, expected_box, make_run, make_sample

from bbox import localize
from examples.browser import CHROMIUM, Browser
from finer.edges import FractionalEdges
from lab.boxes import box_iou
from lab.records import Grid
from lab.storage.attention_files import save_attention
from lab.storage.files import load_bbox_json
from report.page import build
from report.records import ReportSample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

ROOT = Path(__file__).resolve().parent.parent
COUNT = 7
HOSTILE_ID = f"row<9>&heads=L0H0,{HOSTILE}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.resize(1300, 900)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[ReportSample]:
    directory = tmp_path_factory.mktemp("pictures")
    found = [make_sample(directory, number, phrase=f"the bird number {number}") for number in range(COUNT)]
    return [*found, make_sample(directory, 9, HOSTILE, HOSTILE_ID)]


@pytest.fixture(scope="module")
def address(tmp_path_factory, samples) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build(make_run(len(samples)), samples), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, address) -> Iterator[Browser]:
    """The page, freshly opened; whatever a test does to it, it must log no error and ask for nothing."""
    browser.open(address)
    yield browser
    assert browser.problems == []
    assert [
        url for url in browser.requests if not url.startswith(("data:", "blob:")) and url.partition("#")[0] != address
    ] == []


def texts(page: Browser, selector: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")
    return found


def click(page: Browser, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def set_field(page: Browser, name: str, value: object) -> None:
    """Set a field as a person does: its value, then its event."""
    page.run(
        f"(() => {{ const f = document.getElementById({json.dumps(name)}); f.value = {json.dumps(str(value))};"
        "f.dispatchEvent(new Event(f.tagName === 'SELECT' ? 'change' : 'input', { bubbles: true })); })()"
    )


def shown_ids(page: Browser) -> list[str]:
    found: list[str] = page.run("[...document.querySelectorAll('#cards .card')].map((e) => e.dataset.id)")
    return found


def fact(page: Browser, name: str) -> str:
    return texts(page, f"#facts dd[data-fact={json.dumps(name)}]")[0]


def shown_box(page: Browser) -> list[float] | None:
    text = page.run("document.querySelector('#stage .predicted')?.dataset.box ?? null")
    return None if text is None else [float(edge) for edge in text.split(",")]


# Arithmetic


def random_case(number: int) -> tuple[np.ndarray, Grid, tuple[int, int], dict[str, object]]:
    """Maps of every sort: noise, blobs, few values with ties, flat ones; grids that reach out of the image or not."""
    rng = np.random.default_rng(number)
    rows, cols = (int(side) for side in rng.integers(1, 25, 2))
    size_wh = (int(rng.integers(20, 700)), int(rng.integers(20, 700)))
    x0, y0 = rng.uniform(-0.3, 0.1, 2) * size_wh
    grid = Grid(rows, cols, x0, y0, (size_wh[0] * 1.1 - x0) / cols, (size_wh[1] * rng.uniform(0.7, 1.2) - y0) / rows)
    maps = rng.gamma(0.4, 1.0, (int(rng.integers(1, 5)), rows, cols)).astype(np.float32)
    if number % 4 == 1:
        maps = rng.integers(0, 3, maps.shape).astype(np.float32)
    if number % 10 == 2:
        maps[:] = 0.25
    options = {
        "sigma": float(rng.choice([0.0, 0.3, 1.0, 2.7])) if number % 4 != 1 else 0.0,
        "truncate": float(rng.choice([3.0, 4.0, 1.5])),
        "region": ("largest", "heaviest", "all")[number % 3],
        "relative_threshold": float(rng.choice([0.0, 0.5, 1.0, 2.0])),
    }
    if number % 5 == 3:
        options["edges"] = FractionalEdges(float(rng.choice([0.3, 0.7, 0.9])), float(rng.choice([0.25, 1.0, 2.0])))
    return maps, grid, size_wh, options


def test_boxes_are_those_of_bbox_to_a_tenth_of_a_pixel(browser) -> None:
    browser.open("about:blank")
    browser.run((ROOT / "report/static/geometry.js").read_text(encoding="utf-8") + "; 0")
    num_boxes = 0
    for number in range(160):
        maps, grid, size_wh, options = random_case(number)
        edges = options.pop("edges", None)
        rules = {**options, "threshold": options["relative_threshold"], "edges": "fractional" if edges else "cells"}
        if isinstance(edges, FractionalEdges):
            rules.update(edgeMost=edges.most, edgePower=edges.power)
        expected = localize(maps, grid, size_wh, edges=edges, **options)  # type: ignore[arg-type]
        arguments = [[m.ravel().tolist() for m in maps], vars(grid), size_wh, rules]
        found = browser.run(f"(() => {{ const r = localize(...{json.dumps(arguments)});"
                            "return { box: r.box, mask: [...r.mask] }; })()")  # fmt: skip
        if expected.box_xyxy is None:
            assert found["box"] is None, number
            continue
        num_boxes += 1
        np.testing.assert_allclose(found["box"], expected.box_xyxy, atol=0.1, err_msg=str(number))
        assert found["mask"] == expected.cell_mask.ravel().tolist(), number
    assert num_boxes > 100


# Gallery


def test_the_page_opens_without_error_or_request_and_lists_every_picture(page, samples) -> None:
    assert shown_ids(page) == [sample.collected.sample.id for sample in samples]
    assert texts(page, "#gallery-count") == [f"{COUNT + 1} of {COUNT + 1} pictures"]
    assert texts(page, "#cards .card:first-child mark") == ["0"]
    assert page.run("[...document.images].concat([...document.querySelectorAll('image')]).length") >= COUNT


def test_the_gallery_sorts_by_iou(page, samples) -> None:
    ious = {s.collected.sample.id: 0.0 if s.box_xyxy is None else box_iou(s.box_xyxy, s.truth_xyxy) for s in samples}
    assert len(set(ious.values())) > 2
    for order, factor in (("worst", 1), ("best", -1)):
        set_field(page, "sort", order)
        assert [ious[name] for name in shown_ids(page)] == sorted(ious.values(), key=lambda iou: factor * iou)


def test_the_gallery_filters_by_text_kind_and_iou(page, samples) -> None:
    set_field(page, "search", "NUMBER 3")
    assert shown_ids(page) == ["row3"]
    set_field(page, "search", "")
    set_field(page, "kind", "wrong_object")
    wrong = shown_ids(page)
    assert "row3" in wrong
    assert set(texts(page, "#cards .kind")) == {"wrong object"}
    set_field(page, "kind", "")
    set_field(page, "lowest", 0.05)
    assert not set(shown_ids(page)) & set(wrong)
    assert 0 < len(shown_ids(page)) < len(samples)


def test_rules_of_kinds_and_failed_rows_are_told(page) -> None:
    assert "IoU below 0.1" in " ".join(texts(page, "#view-gallery .rules dd"))
    assert texts(page, "#failures li") == ["bad <row> Expected a picture & got <none>."]


# Explorer


def open_sample(page: Browser, place: int) -> None:
    click(page, f"#cards .card:nth-child({place + 1}) .open")


def test_a_sample_opens_with_the_box_of_the_run(page, samples) -> None:
    open_sample(page, 1)
    np.testing.assert_allclose(shown_box(page), samples[1].box_xyxy, atol=0.1)
    assert fact(page, "heads") == "L3H1 L4H2 L5H0"
    assert float(fact(page, "IoU")) == pytest.approx(box_iou(samples[1].box_xyxy, samples[1].truth_xyxy), abs=6e-4)
    assert page.run("document.querySelectorAll('.matrix td.found').length") == 3
    assert page.run("document.querySelectorAll('.matrix td.filtered').length") == 2 * HEADS


@pytest.mark.parametrize(
    ("field", "values"),
    [
        pytest.param("sigma", [0, 0.4, 2.5], id="sigma"),
        pytest.param("threshold", [0.5, 2, 5], id="threshold"),
        pytest.param("region", ["heaviest", "all"], id="region"),
        pytest.param("k", [1, 2, 4, 5], id="k"),
    ],
)
def test_sliders_move_the_box_as_bbox_does(page, samples, field: str, values: list[object]) -> None:
    boxes = set()
    for place in (1, 4):
        page.run("location.hash = ''")
        click(page, "#tab-gallery")
        open_sample(page, place)
        for value in values:
            set_field(page, field, value)
            heads = RANKED[: int(str(value))] if field == "k" else USED
            rules = RULES if field == "k" else replace(RULES, **{field: value})
            expected = expected_box(samples[place].collected, heads, rules)
            assert (shown_box(page) is None) == (expected is None)
            if expected is not None:
                np.testing.assert_allclose(shown_box(page), expected, atol=0.1)
                boxes.add(expected)
        click(page, "#reset-rules")
    assert len(boxes) > 2


def test_heads_are_picked_by_click_and_by_key_and_give_their_box(page, samples) -> None:
    open_sample(page, 2)
    for layer, head in USED:
        click(page, f"td[data-head='{layer * HEADS + head}']")
    assert shown_box(page) is None
    assert fact(page, "heads") == "none"
    page.run(f"document.querySelector('td[data-head=\"{2 * HEADS}\"]').focus()")
    page.press("ArrowRight", 39)
    page.press("Enter", 13, "\r")
    assert fact(page, "heads") == "L2H1"
    np.testing.assert_allclose(shown_box(page), expected_box(samples[2].collected, ((2, 1),), RULES), atol=0.1)
    assert page.run("document.querySelectorAll('.matrix td[aria-selected=true]').length") == 1
    assert len(texts(page, "#across .thumbnail")) == len(samples)


def test_a_random_head_is_one_that_is_not_picked(page) -> None:
    open_sample(page, 0)
    for _ in range(5):
        click(page, "#random-head")
        assert fact(page, "heads") not in {"none", "L3H1", "L4H2", "L5H0"}
        assert len(texts(page, "#strip .thumbnail")) == 1


def test_cells_are_read_with_value_and_pixels(page, samples) -> None:
    open_sample(page, 1)
    click(page, f"td[data-head='{5 * HEADS}']")
    click(page, f"td[data-head='{4 * HEADS + 2}']")
    set_field(page, "sigma", 0)
    page.run("document.querySelector('#stage svg').focus()")
    page.press("ArrowUp", 38)
    page.press("ArrowLeft", 37)
    page.press("ArrowUp", 38)
    text = texts(page, "#readout")[0]
    value = samples[1].collected.attention[3, 1].reshape(8, 8)[2, 3]
    assert text.startswith("row 2, column 3; x 60.0 to 80.0, y 20.0 to 40.0 pixels")
    assert float(text.rpartition("L3H1 ")[2]) == pytest.approx(value, abs=6e-4)


def test_svg_csv_and_command_say_what_is_shown(page) -> None:
    page.run(
        "window.saved = []; "
        "const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { window.saved.push(blob.text()); return make.call(URL, blob); }; 0"
    )
    open_sample(page, COUNT)
    set_field(page, "threshold", 2)
    click(page, "#save-svg")
    click(page, "#save-csv")
    svg, row = page.run("Promise.all(window.saved)")
    assert svg.startswith("<svg")
    assert "data:image/jpeg" in svg
    header, _, line = row.partition("\r\n")
    assert header.startswith("id,phrase,heads,sigma")
    assert "L3H1 L4H2 L5H0,1,4,2,largest" in line
    click(page, "#show-command")
    command = page.run("document.getElementById('text-field').value")
    assert command.startswith("mkdir -p views && cp out/row9.pkl.gz views/ && python pipeline.py stage=visualize ")
    assert "data.attention_file=views/row9.pkl.gz 'logic.manual_heads=[L3H1,L4H2,L5H0]'" in command
    assert "logic.mask.relative_threshold=2" in command
    click(page, "#text-close")


# Links, text, other views


def test_a_link_restores_sample_heads_and_rules(page, browser, address, samples) -> None:
    browser.open(f"{address}#id=row2&heads=L5H0,L3H1&sigma=0.5&region=all")
    expected = expected_box(samples[2].collected, ((5, 0), (3, 1)), replace(RULES, sigma=0.5, region="all"))
    assert fact(page, "heads") == "L5H0 L3H1"
    np.testing.assert_allclose(shown_box(page), expected, atol=0.1)
    assert page.run("document.getElementById('sigma').value") == "0.5"
    set_field(page, "threshold", 1.5)
    link = page.run("location.href")
    before = shown_box(page)
    browser.open(link)
    assert shown_box(page) == before


def test_a_link_to_a_hostile_id_is_restored_and_makes_no_element(page, browser, address) -> None:
    browser.open(f"{address}#id={quote(HOSTILE_ID)}&heads=L5H0")
    assert texts(page, "#sample-phrase") == [HOSTILE]
    assert fact(page, "heads") == "L5H0"
    assert page.run("document.title") == "Localization heads of fake-model"
    for view in ("gallery", "compare", "explorer"):
        click(page, f"#tab-{view}")
    assert (
        page.run("document.querySelectorAll('img, b, iframe, body > script:not([type]):not(:last-of-type)').length")
        == 0
    )


@pytest.mark.parametrize(
    "hash_",
    [
        "id=nobody&heads=L0H0",
        "id=row1&heads=L99H99,xyz",
        "id=%E0%A4%A",
        "view=none&sort=no&sigma=-1",
        "id=row1&sigma=NaN&region=x",
    ],
    ids=["unknown-id", "unknown-heads", "broken-encoding", "unknown-view", "unknown-rules"],
)
def test_a_broken_link_opens_the_page_all_the_same(page, browser, address, hash_: str) -> None:
    browser.open(f"{address}#{hash_}")
    visible = page.run("[...document.querySelectorAll('main > [role=tabpanel]')].filter((e) => !e.hidden).length")
    assert visible == 1


def test_the_data_set_shows_elbow_frequencies_audit_and_scores(page) -> None:
    click(page, "#tab-dataset")
    headings = texts(page, "#view-dataset h2")
    assert headings == ["Scores", "Attention sums and the elbow", "How often each head is chosen", "Audit of the heads"]
    assert "0.700 [0.600, 0.800]" in " ".join(texts(page, "#view-dataset .strong"))
    assert texts(page, "#view-dataset .numbers tbody tr:first-child td")[:2] == ["L3H1", "90.0 %"]
    assert page.run("document.querySelectorAll('#view-dataset rect.ringed').length") == 3


def test_two_runs_stand_side_by_side(page) -> None:
    click(page, "#tab-compare")
    assert texts(page, "#view-compare .count")[0].endswith(
        f"The other: another <run>. 1 of {COUNT + 1} pictures are in both."
    )
    assert page.run("document.querySelectorAll('#view-compare .other.box').length") == 1


def test_tabs_work_by_key_and_say_which_is_chosen(page) -> None:
    page.run("document.getElementById('tab-gallery').focus()")
    page.press("ArrowRight", 39)
    assert page.run("document.activeElement.id") == "tab-explorer"
    assert page.run("document.getElementById('tab-explorer').getAttribute('aria-selected')") == "true"
    assert page.run(
        "[...document.querySelectorAll('button, select, input')].every((e) => e.textContent || e.labels?.length)"
    )


@pytest.mark.parametrize("view", ["gallery", "explorer", "dataset", "compare"])
def test_narrow_screens_need_no_sideways_scrolling(page, view: str) -> None:
    page.resize(360, 740)
    click(page, f"#tab-{view}")
    width = page.run("document.documentElement.scrollWidth")
    page.resize(1300, 900)
    assert width <= 360


def test_a_head_whose_map_is_left_out_is_told_and_not_drawn(browser, tmp_path, samples, monkeypatch) -> None:
    monkeypatch.setattr("report.page._kept_count", lambda run: 0)
    path = tmp_path / "few.html"
    path.write_text(build(make_run(2), samples[:2]), encoding="utf-8")
    browser.open(f"{path.as_uri()}#id=row1&heads=L5H0,L0H0")
    assert fact(browser, "heads") == "L5H0"
    assert "L0H0: map not kept in this file, left out here." in texts(browser, "#result .hint")
    assert browser.run("document.querySelectorAll('.matrix td.unheld').length") == LAYERS * HEADS - len(RANKED)
    assert tuple(samples[0].collected.image_size_wh) == SIZE_WH
    assert browser.problems == []


def test_the_command_of_a_view_gives_the_box_of_the_view(browser, tmp_path, samples) -> None:
    file = tmp_path / "it's one" / "row 1.pkl.gz"
    file.parent.mkdir()
    save_attention(file, samples[1].collected, dtype="float32")
    path = tmp_path / "report.html"
    path.write_text(build(make_run(1), [replace(samples[1], file=str(file))]), encoding="utf-8")
    browser.open(f"{path.as_uri()}#id=row1&heads=L3H1,L2H0&sigma=0.5&threshold=1.2&region=heaviest")
    click(browser, "#show-command")
    command = browser.run("document.getElementById('text-field').value")
    command = command.replace("python pipeline.py", shlex.join([sys.executable, str(ROOT / "pipeline.py")]))
    subprocess.run(
        ["sh", "-c", f"{command} save_fig=false model.name=fake/model"], cwd=tmp_path, check=True, capture_output=True
    )
    found = load_bbox_json(tmp_path / "views" / "row 1_bbox.json")
    np.testing.assert_allclose(found["bbox_xyxy"], shown_box(browser), atol=0.1)
    assert [(head["layer"], head["head"]) for head in found["selected_heads"]] == [(3, 1), (2, 0)]


@pytest.mark.parametrize(
    ("edges", "is_offered"), [pytest.param(None, False, id="whole-cells-only"), pytest.param("cells", True, id="both")]
)
def test_edges_are_offered_where_the_run_knows_them(browser, tmp_path, samples, edges, is_offered: bool) -> None:
    path = tmp_path / "report.html"
    path.write_text(build(make_run(1, rules=replace(RULES, edges=edges)), samples[1:2]), encoding="utf-8")
    browser.open(f"{path.as_uri()}#id=row1")
    assert browser.run("document.getElementById('edges').parentElement.hidden") is not is_offered
    np.testing.assert_allclose(shown_box(browser), samples[1].box_xyxy, atol=0.1)
    if is_offered:
        set_field(browser, "edges", "fractional")
        x0, y0, x1, y1 = shown_box(browser) or [0.0] * 4
        whole = samples[1].box_xyxy or (0.0,) * 4
        assert whole[0] <= x0 < x1 <= whole[2]
        assert whole[1] <= y0 < y1 <= whole[3]
        assert [x0, y0, x1, y1] != list(whole)
