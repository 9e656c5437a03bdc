"""Figures: their layout, the place of boxes and maps in them, and that they can be drawn by several threads."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import viz
from figures import gallery, label_places, layout, overlay, theme
from figures import text as words
from lab.records import Grid, HeadChoice, HeadScore, Localization

GREEN = (0, 200, 0)
CYAN = tuple(int(theme.PREDICTED_COLOR[start : start + 2], 16) for start in (1, 3, 5))


def padded_grid(image_size_wh, cells=24):
    """The grid over the square that a padded picture is pasted into."""
    side = max(image_size_wh)
    x0, y0 = ((side - length) / -2 for length in image_size_wh)
    return Grid(cells, cells, x0, y0, side / cells, side / cells)


def blob(grid, center_xy, radius):
    """`[rows, cols]` with one round hill at a place of the picture."""
    x = grid.x0 + (np.arange(grid.cols) + 0.5) * grid.cell_w - center_xy[0]
    y = grid.y0 + (np.arange(grid.rows) + 0.5) * grid.cell_h - center_xy[1]
    return np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * radius**2)).astype(np.float32)


def choice_of(count, source="automatic"):
    scores = [HeadScore(14, head, 0.3, math.inf if head == 1 else 0.5, False, 1) for head in range(count)]
    return HeadChoice(tuple(scores), source)


def localization_of(map_, image_size_wh, box_xyxy, cell_mask=None):
    cells = map_ > map_.mean() if cell_mask is None else cell_mask
    return Localization(map_, cells, np.zeros(image_size_wh[::-1], bool), box_xyxy, image_size_wh)


def draw(
    path, image_size_wh=(640, 480), count=3, query="the bird", box=(10.0, 20.0, 110.0, 220.0), center=None, **options
):
    """Draw a plain green picture with the same blob for every head."""
    grid = options.pop("grid", None) or padded_grid(image_size_wh)
    map_ = blob(grid, center or (image_size_wh[0] / 2, image_size_wh[1] / 2), max(image_size_wh) / 12)
    localization = localization_of(map_, image_size_wh, box, options.pop("cell_mask", None))
    maps = np.repeat(map_[None], count, axis=0)
    image = Image.new("RGB", image_size_wh, GREEN)
    return viz.draw_top_heads(path, image, maps, grid, choice_of(count), localization, query, **options)


def read_pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def find_panels(pixels, count):
    """(left, top, right, bottom) of the largest parts of the page that are not white, in reading order."""
    parts, _ = ndimage.label((pixels < 250).any(axis=2))
    slices = ndimage.find_objects(parts)
    largest = sorted(slices, key=lambda part: (part[0].stop - part[0].start) * (part[1].stop - part[1].start))[-count:]
    boxes = [(part[1].start, part[0].start, part[1].stop, part[0].stop) for part in largest]
    return sorted(boxes, key=lambda box: (round(box[1] / 20), box[0]))


def hottest_point(pixels, panel, image_size_wh):
    """Where the map's colour is strongest, in pixels of the original image."""
    left, top, right, bottom = panel
    inside = pixels[top + 4 : bottom - 4, left + 4 : right - 4]
    heat = np.abs(inside - np.median(inside[:3].reshape(-1, 3), axis=0)).sum(axis=2)
    rows, cols = np.nonzero(heat >= np.quantile(heat, 0.999))
    scale_x, scale_y = image_size_wh[0] / (right - left), image_size_wh[1] / (bottom - top)
    return (cols.mean() + 4.5) * scale_x, (rows.mean() + 4.5) * scale_y


@pytest.mark.parametrize("image_size_wh", [(640, 480), (480, 640), (900, 300)])
def test_top_heads_draws_the_peak_where_it_lies_in_the_picture(tmp_path, image_size_wh):
    path = tmp_path / "a.png"
    center = (image_size_wh[0] * 0.3, image_size_wh[1] * 0.65)
    nothing = np.zeros((24, 24), bool)
    draw(path, image_size_wh, box=None, center=center, cell_mask=nothing, sigma=0.5)
    pixels = read_pixels(path)
    panels = find_panels(pixels, 5)
    points = [hottest_point(pixels, panel, image_size_wh) for panel in panels[1:]]
    assert np.allclose(points, center, atol=0.03 * max(image_size_wh)), points


@pytest.mark.parametrize("image_size_wh", [(640, 480), (480, 640), (1800, 1350)])
def test_top_heads_draws_the_box_where_it_lies_in_the_picture(tmp_path, image_size_wh):
    path = tmp_path / "a.png"
    width, height = image_size_wh
    box = (0.2 * width, 0.3 * height, 0.7 * width, 0.8 * height)
    draw(path, image_size_wh, box=box)
    pixels = read_pixels(path)
    left, top, right, bottom = find_panels(pixels, 5)[0]
    cyan = np.abs(pixels[top:bottom, left:right] - CYAN).max(axis=2) < 40
    rows, cols = np.nonzero(cyan)
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    found = (cols.min() * scale_x, rows.min() * scale_y, (cols.max() + 1) * scale_x, (rows.max() + 1) * scale_y)
    # The line is 2.2 points (3.7 pixels of the page) wide, half of it outside.
    assert np.allclose(found, box, atol=3.5 * max(scale_x, scale_y)), (found, box)


def test_top_heads_draws_the_ground_truth_and_its_iou(tmp_path):
    without, with_truth = tmp_path / "a.png", tmp_path / "b.png"
    figure = draw(without)
    assert not any("IoU" in text.get_text() for text in figure.texts)
    figure = draw(with_truth, truth_box_xyxy=(10.0, 20.0, 110.0, 120.0))
    assert "IoU 0.50" in [text.get_text() for text in figure.texts]
    assert "ground truth" in [text.get_text() for text in figure.texts]
    assert without.read_bytes() != with_truth.read_bytes()


def texts_of(figure):
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize(
    ("model_name", "short"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("examples/models/picturebook-llava/", "picturebook-llava"),
        ("C:\\models\\llava", "llava"),
        ("/cache/models--llava-hf--llava-1.5-7b-hf/snapshots/ab12", "llava-1.5-7b-hf"),
    ],
    ids=["repository", "directory", "windows", "cache"],
)
def test_top_heads_names_heads_with_their_scores_and_the_model_briefly(model_name, short):
    texts = texts_of(draw(None, count=2, query="the bird", model_name=model_name))
    assert {"“the bird”", "L14H0", "L14H1", "Combined"} <= set(texts)
    assert f"{short} · 640 × 480 px · heads chosen per image · box 10, 20, 110, 220" in texts
    assert sum("entropy 0.500 · sum 0.300" in text for text in texts) == 1
    assert sum("entropy ∞ · sum 0.300" in text for text in texts) == 1


def draw_two(path, first, second, grid=None, sigma=0.0, **options):
    """Draw two maps over a plain green picture; returns the figure and the panels of the two heads and the mean."""
    size = (160, 160)
    grid = grid or Grid(8, 8, 0.0, 0.0, 20.0, 20.0)
    maps = np.stack([first, second]).astype(np.float32)
    cells = options.pop("cell_mask", np.zeros((8, 8), bool))
    localization = localization_of(maps.sum(axis=0), size, options.pop("box", None), cells)
    image = Image.new("RGB", size, GREEN)
    figure = viz.draw_top_heads(path, image, maps, grid, choice_of(2), localization, "x", sigma=sigma, **options)
    pixels = read_pixels(path)
    return figure, [pixels[top:bottom, left:right] for left, top, right, bottom in find_panels(pixels, 4)[1:]]


def one_cell(value, cell=(2, 5)):
    map_ = np.zeros((8, 8))
    map_[cell] = value
    return map_


def distance_from_plain(panel):
    """How far each pixel within the frame is from that in the panel's lower left corner."""
    return np.abs(panel - panel[-6, 6]).sum(axis=2)[4:-4, 4:-4]


def test_maps_share_one_scale_so_that_a_faint_head_does_not_glow(tmp_path):
    _, (bright, faint, mean) = draw_two(tmp_path / "a.png", one_cell(0.9), one_cell(0.009))
    full = distance_from_plain(bright).max()
    assert full > 200
    assert distance_from_plain(faint).max() < 25
    assert 60 < distance_from_plain(mean).max() < 0.9 * full  # of .9 and .009, in the same unit


def test_colour_bar_says_where_its_scale_ends_and_that_all_maps_share_it(tmp_path):
    figure, _ = draw_two(tmp_path / "a.png", one_cell(0.5), one_cell(0.125))
    assert "0" in texts_of(figure)
    assert "0.5  attention in a cell; one scale for all maps".replace("  ", " ") in texts_of(figure)
    figure, _ = draw_two(tmp_path / "a.png", one_cell(0.5), one_cell(0.125), sigma=1.0)
    assert any(text.endswith("attention in a cell, smoothed; one scale for all maps") for text in texts_of(figure))


def test_share_on_the_picture_leaves_out_padding_and_words(tmp_path):
    # The lower half of the grid is padding: of .4 on the image tokens .3 lie on the picture.
    grid = Grid(8, 8, 0.0, 0.0, 20.0, 40.0)
    first = one_cell(0.3, (1, 1)) + one_cell(0.1, (6, 6))
    figure, _ = draw_two(tmp_path / "a.png", first, one_cell(0.0002, (1, 1)), grid)
    labels = [text for text in texts_of(figure) if text.endswith("on picture")]
    assert [label.split(" · ")[-1] for label in labels] == ["30.0% on picture", "< 0.1% on picture"]


def test_padding_does_not_set_the_scale(tmp_path):
    grid = Grid(8, 8, 0.0, 0.0, 20.0, 40.0)
    first = one_cell(0.01, (1, 1)) + one_cell(0.9, (6, 6))
    figure, _ = draw_two(tmp_path / "a.png", first, one_cell(0.01), grid)
    assert "0.01 attention in a cell; one scale for all maps" in texts_of(figure)


@pytest.mark.parametrize("sigma", [0.0, 1.0], ids=["plain", "smoothed"])
def test_maps_are_drawn_as_cells(tmp_path, sigma):
    _, (panel, _, _) = draw_two(tmp_path / "a.png", one_cell(0.5, (3, 4)), one_cell(0.5, (3, 4)), sigma=sigma)
    cell = len(panel) / 8
    for row, col in [(3, 4), (3, 5), (2, 4), (0, 0)]:
        inside = panel[
            round(row * cell) + 3 : round((row + 1) * cell) - 3, round(col * cell) + 3 : round((col + 1) * cell) - 3
        ]
        assert np.ptp(inside.reshape(-1, 3), axis=0).max() == 0


@pytest.mark.parametrize("cells", [8, 48])
def test_line_of_the_mask_does_not_cut_that_of_its_tight_box(tmp_path, cells):
    mask = np.zeros((cells, cells), bool)
    mask[cells // 4 : 3 * cells // 4, cells // 4 : 3 * cells // 4] = True
    mask[cells // 4, cells // 4] = False
    grid = Grid(cells, cells, 0.0, 0.0, 160 / cells, 160 / cells)
    nothing, box = np.zeros((cells, cells)), (40.0, 40.0, 120.0, 120.0)
    _, (_, _, panel) = draw_two(tmp_path / "a.png", nothing, nothing, grid, box=box, cell_mask=mask)
    cyan = np.abs(panel - CYAN).max(axis=2) < 60
    rows, cols = np.nonzero(cyan)
    left, top, right, bottom = cols.min(), rows.min(), cols.max(), rows.max()
    lines = (
        cyan[top : top + 4, left : right + 1],
        cyan[bottom - 3 : bottom + 1, left : right + 1],
        cyan[top : bottom + 1, left : left + 4].T,
        cyan[top : bottom + 1, right - 3 : right + 1].T,
    )
    # The outermost pixels of a line are mixed with what lies below; some row of each is whole.
    assert all(line[:, 2:-2].all(axis=1).any() for line in lines)


def test_line_of_the_mask_is_seen_within_the_box(tmp_path):
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    nothing, box = np.zeros((8, 8)), (40.0, 40.0, 120.0, 120.0)
    _, (_, _, with_mask) = draw_two(tmp_path / "a.png", nothing, nothing, box=box, cell_mask=mask)
    _, (_, _, without) = draw_two(tmp_path / "b.png", nothing, nothing, box=box)
    for panel, seen in ((with_mask, True), (without, False)):
        middle = panel[len(panel) // 2]
        cyan = np.flatnonzero(np.abs(middle - CYAN).max(axis=1) < 60)
        dark = np.flatnonzero(middle.max(axis=1) < 90)
        assert (len(dark[(cyan[0] < dark) & (dark < cyan[-1])]) >= 2) == seen


def test_top_heads_says_how_many_of_the_heads_that_were_asked_for_passed():
    assert any("3 of 65 heads: no others passed" in text for text in texts_of(draw(None, count=3, top_k=65)))
    assert not any("passed" in text for text in texts_of(draw(None, count=3, top_k=3)))
    assert not any("passed" in text for text in texts_of(draw(None, count=3)))


def test_top_heads_shows_all_of_65_heads_in_readable_size(tmp_path):
    figure = draw(tmp_path / "a.png", count=65, top_k=65)
    assert {f"L14H{head}" for head in range(65)} <= set(texts_of(figure))
    panels = find_panels(read_pixels(tmp_path / "a.png"), 67)
    assert min(right - left for left, _, right, _ in panels) > 150


def test_top_heads_of_very_many_heads_says_how_many_are_shown(monkeypatch):
    monkeypatch.setattr("figures.top_heads.MOST_PANELS", 4)
    texts = texts_of(draw(None, count=6))
    assert any("first 4 of 6 heads shown" in text for text in texts)
    assert "L14H3" in texts
    assert "L14H4" not in texts
    assert any(text.startswith("mean of 6 heads") for text in texts)


@pytest.mark.parametrize(("image_size_wh", "side"), [((1, 6000), "wider"), ((6000, 1), "taller")], ids=["tall", "wide"])
def test_pictures_that_are_mostly_length_are_drawn_in_another_shape_and_say_so(tmp_path, image_size_wh, side):
    figure = draw(tmp_path / "a.png", image_size_wh, 1, box=(0.0, 0.0, 1.0, 1.0))
    size = f"{image_size_wh[0]} × {image_size_wh[1]} px, drawn {side} than it is"
    assert any(size in text for text in texts_of(figure))
    panels = find_panels(read_pixels(tmp_path / "a.png"), 3)
    assert min(min(right - left, bottom - top) for left, top, right, bottom in panels) > 30


def test_a_missing_box_counts_as_an_iou_of_0():
    texts = texts_of(draw(None, box=None, truth_box_xyxy=(10.0, 20.0, 110.0, 120.0)))
    assert "no box · IoU 0.00" in texts


def test_top_heads_says_that_there_is_no_box(tmp_path):
    path = tmp_path / "a.png"
    texts = [text.get_text() for text in draw(path, box=None).texts]
    assert "no box" in texts
    left, top, right, bottom = find_panels(read_pixels(path), 5)[0]
    assert not (np.abs(read_pixels(path)[top:bottom, left:right] - CYAN).max(axis=2) < 40).any()


@pytest.mark.parametrize(
    "query", ["一只红色的小鸟", "قطة على الأرض", "แมวบนพื้น 🐦", "$5 and \\frac{$", "a\nb\tc\x00", "q" * 900]
)
def test_top_heads_draws_any_query_without_a_warning(tmp_path, query):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(tmp_path / "a.png", query=query)
    width = figure.get_size_inches()[0]
    renderer = figure.canvas.get_renderer()
    assert all(text.get_window_extent(renderer).x1 <= width * figure.dpi for text in figure.texts)


@pytest.mark.parametrize(
    ("image_size_wh", "count"), [((1, 1), 1), ((1, 3000), 11), ((3000, 1), 4), ((200, 3000), 11), ((4000, 300), 10)]
)
def test_top_heads_draws_pictures_of_any_shape_on_a_page_of_sane_size(tmp_path, image_size_wh, count):
    path = tmp_path / "a.png"
    draw(path, image_size_wh, count, box=(0.0, 0.0, 1.0, 1.0))
    width, height = Image.open(path).size
    assert width <= 1650
    assert height <= 1200


def test_top_heads_without_path_writes_nothing_and_same_input_gives_same_bytes(tmp_path):
    assert draw(None).get_size_inches()[0] > 3
    assert not list(tmp_path.iterdir())
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_top_heads_leaves_its_input_alone(tmp_path):
    image = Image.new("RGB", (64, 48), GREEN)
    grid = padded_grid(image.size)
    maps = np.repeat(blob(grid, (20, 20), 8)[None], 2, axis=0)
    before = maps.copy()
    viz.draw_top_heads(None, image, maps, grid, choice_of(2), localization_of(maps[0], image.size, None), "x")
    assert (maps == before).all()
    assert image.size == (64, 48)


def test_figures_drawn_by_two_threads_equal_those_drawn_alone(tmp_path):
    def job(index):
        size = [(640, 480), (300, 500), (900, 300), (400, 400)][index % 4]
        draw(tmp_path / f"{index}.png", size, 1 + index % 3, query=f"thing number {index}")
        return (tmp_path / f"{index}.png").read_bytes()

    alone = [job(index) for index in range(5)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(job, range(5)))
    assert together == alone


def test_drawing_imports_no_pyplot_and_show_needs_no_display(tmp_path):
    code = (
        "import sys, logging; import numpy as np; from PIL import Image; import viz\n"
        "logging.basicConfig(level='WARNING')\n"
        "figure = viz.draw_gallery(None, [viz.GalleryEntry(Image.new('RGB', (40, 30)), 'x')])\n"
        "viz.draw_elbow(None, np.arange(9.0) / 9, 0.4)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
        "viz.show(figure)\n"
    )
    root = Path(viz.__file__).parent
    environment = {"MPLBACKEND": "agg", "PATH": "/usr/bin", "PYTHONPATH": str(root), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "no display was found" in done.stderr


def test_show_hands_the_finished_pixels_to_a_window(monkeypatch):
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "get_backend", lambda: "qtagg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf().images[0].get_array().shape))
    figure = draw(None)
    viz.show(figure)
    width, height = (figure.get_size_inches() * figure.dpi).round().astype(int)
    assert shown == [(height, width, 4)]
    assert not pyplot.get_fignums()


def test_global_settings_stay_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    draw(tmp_path / "a.pdf")
    viz.draw_elbow(tmp_path / "b.pdf", np.arange(9.0) / 9, 0.4)
    assert dict(matplotlib.rcParams) == before


def test_pdf_holds_true_type_letters(tmp_path):
    viz.draw_elbow(tmp_path / "a.pdf", np.arange(9.0) / 9, 0.4)
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.eps", "a.ps"])
def test_paths_of_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"^Expected the path of a figure to end in \.png, \.pdf or \.svg, but"
    ) as raised:
        draw(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_maps_that_do_not_fit_are_refused():
    image = Image.new("RGB", (64, 48))
    grid = padded_grid(image.size, 6)
    maps = np.ones((2, 6, 6), np.float32)
    localization = localization_of(maps[0], image.size, None)
    wrong = [
        (image, maps[0], choice_of(2), r"Expected maps to have the shape \[K, rows, cols\], but got \[6, 6\]"),
        (image, maps[:, :5], choice_of(2), r"Expected maps to fit the grid's 6 x 6 cells, but got .*\[5, 6\]"),
        (image, maps * np.nan, choice_of(2), "Expected maps to be finite, but got NaN or inf"),
        (image, maps, choice_of(3), "Expected one map for each chosen head, .* but got 2 maps for 3 heads"),
        (image, maps[:0], choice_of(0), "Expected one map for each chosen head, at least one, but got 0 maps"),
        (image.resize((48, 64)), maps, choice_of(2), "Expected the picture to be 64 x 48 px .* but got 48 x 64 px"),
    ]
    for picture, stack, choice, message in wrong:
        with pytest.raises(ValueError, match=message):
            viz.draw_top_heads(None, picture, stack, grid, choice, localization, "x")


@settings(max_examples=60, deadline=None)
@given(st.floats(-3.5, 3.5).map(math.exp), st.integers(1, 12), st.booleans())
def test_pictures_on_a_page_keep_their_shape_and_do_not_overlap(aspect, count, truth):
    hero = layout.Label("Picture", ("IoU 0.50",) if truth else ())
    heads = [layout.Label(f"L14H{head}", ("entropy 0.500", "sum 0.300")) for head in range(count)]
    body = layout.plan_body(aspect, [hero, *heads, layout.Label("Combined", ("3 heads", "sigma 1"))])
    assert len(body.slots) == count + 1
    rows = [body.hero_rows] + [body.label_rows] * len(body.slots)
    placed = [
        (slot, slot.top - lines * words.line_height(theme.LABEL_PT))
        for slot, lines in zip((body.hero, *body.slots), rows)
    ]
    for index, (slot, label_top) in enumerate(placed):
        assert slot.width / slot.height == pytest.approx(aspect)
        assert slot.left >= 0
        assert label_top >= -1e-9
        assert slot.left + slot.width <= body.size_wh[0] + 1e-9
        assert slot.top + slot.height <= body.size_wh[1] + 1e-9
        for other, other_top in placed[:index]:
            beside = slot.left >= other.left + other.width or other.left >= slot.left + slot.width
            assert beside or label_top >= other.top + other.height or other_top >= slot.top + slot.height


@pytest.mark.parametrize("aspect", [0.6, 0.75, 1.0, 4 / 3, 16 / 9, 2.2])
@pytest.mark.parametrize("count", [1, 3, 5, 10])
def test_pictures_cover_most_of_the_page(aspect, count):
    heads = [layout.Label(f"L14H{head}", ("entropy 0.500", "sum 0.300")) for head in range(count)]
    body = layout.plan_body(
        aspect, [layout.Label("Picture", ()), *heads, layout.Label("Combined", ("3 heads", "sigma 1"))]
    )
    area = sum(slot.width * slot.height for slot in (body.hero, *body.slots))
    assert area / math.prod(body.size_wh) > 0.72
    assert min(slot.width for slot in body.slots) >= theme.MIN_ROOM


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=120), st.floats(0.4, 6.0))
def test_wrapped_lines_fit_and_lose_nothing_but_what_is_cut(text, room):
    lines = words.wrap(text, room, 12.0, "bold", max_lines=3)
    assert len(lines) <= 3
    assert all(words.text_width(line, 12.0, "bold") <= room + 1e-9 for line in lines)
    shown, given_text = "".join(lines).replace(" ", ""), words.printable(text).replace(" ", "")
    assert shown == given_text or (shown.endswith("…") and given_text.startswith(shown[:-1]))


def test_text_width_is_what_matplotlib_draws():
    figure = draw(None, query="the quick brown fox jumps over it")
    title = figure.texts[0]
    drawn = title.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    assert words.text_width(title.get_text(), theme.TITLE_PT, "bold") == pytest.approx(drawn, rel=0.04)


def test_cells_are_spread_over_their_pixels_and_nothing_else():
    # A centre crop: the grid covers x 100 to 300 of a picture 400 wide.
    grid = Grid(4, 4, 100.0, 0.0, 50.0, 50.0)
    map_ = np.arange(16, dtype=float).reshape(4, 4) + 1
    heat = overlay.spread_cells(map_, grid, (400, 200), (200, 100))
    assert heat.shape == (100, 200)
    assert (heat[:, :50] == 0).all()
    assert (heat[:, 150:] == 0).all()
    # Cell (1, 2) covers x 200 to 250 and y 50 to 100: at half size 100 to 125 and 25 to 50.
    assert (heat[25:50, 100:125] == map_[1, 2]).all()
    assert (heat == map_[1, 2]).sum() == 25 * 25


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(-40, 60), st.floats(-40, 60), st.floats(3, 50), st.floats(3, 50))
def test_each_pixel_has_the_value_of_the_cell_that_holds_its_centre(rows, cols, x0, y0, cell_w, cell_h):
    grid = Grid(rows, cols, x0, y0, cell_w, cell_h)
    map_ = np.arange(rows * cols, dtype=float).reshape(rows, cols) + 1
    heat = overlay.spread_cells(map_, grid, (60, 40), (31, 23))
    for y, x in [(0, 0), (5, 17), (22, 30), (11, 3)]:
        col = math.floor(((x + 0.5) * 60 / 31 - x0) / cell_w)
        row = math.floor(((y + 0.5) * 40 / 23 - y0) / cell_h)
        expected = map_[row, col] if 0 <= row < rows and 0 <= col < cols else 0
        assert heat[y, x] == np.float32(expected)


def test_overlay_keeps_pixels_without_attention_and_gets_stronger_with_it():
    pixels = np.full((40, 40, 3), 128, np.uint8)
    grid = Grid(4, 4, 0.0, 0.0, 10.0, 10.0)
    assert (overlay.lay_over(pixels, np.zeros((4, 4)), grid, (40, 40), 0.0) == pixels).all()
    ramp = np.repeat(np.arange(4.0)[None], 4, axis=0)
    shown = overlay.lay_over(pixels, ramp, grid, (40, 40), 3.0).astype(int)
    assert (shown[:, 0] == 128).all()
    change = np.abs(shown - 128).sum(axis=2)[20]
    assert change[39] > change[25] > change[15]
    weaker = overlay.lay_over(pixels, ramp, grid, (40, 40), 30.0).astype(int)
    assert np.abs(weaker - 128).sum(axis=2).max() < change[15]


def test_border_segments_frame_the_mask():
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = True
    segments = overlay.border_segments(mask, Grid(3, 4, 5.0, -2.0, 10.0, 20.0))
    assert len(segments) == 6
    assert segments.min(axis=(0, 1)).tolist() == [15.0, 18.0]
    assert segments.max(axis=(0, 1)).tolist() == [35.0, 38.0]


def test_border_drawn_in_lies_within_the_mask_at_every_kind_of_corner():
    # An L: five corners of the mask and one nook.
    mask = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1]], bool)
    segments = overlay.border_segments(mask, Grid(3, 3, 0.0, 0.0, 10.0, 20.0), (1.0, 2.0))
    points = {tuple(np.round(point, 6)) for segment in segments for point in segment}
    corners = {(1, 2), (9, 2), (9, 42), (29, 42), (29, 58), (1, 58)}
    assert corners <= points
    assert all(1 <= x <= 29 and 2 <= y <= 58 for x, y in points)
    for point in points:  # a closed line: an even number of ends meet in each point
        assert sum(tuple(np.round(end, 6)) == point for segment in segments for end in segment) % 2 == 0


def gallery_entry(size=(60, 40), query="a cat", **fields):
    return viz.GalleryEntry(Image.new("RGB", size, GREEN), query, **fields)


def test_gallery_shows_every_query_with_its_score(tmp_path):
    entries = [
        gallery_entry(query="one", box_xyxy=(0.0, 0.0, 20.0, 20.0), truth_xyxy=(0.0, 0.0, 20.0, 40.0)),
        gallery_entry((40, 60), query="two", truth_xyxy=(0.0, 0.0, 20.0, 40.0)),
        gallery_entry((400, 40), query="three", box_xyxy=(1.0, 1.0, 9.0, 9.0)),
        gallery_entry((40, 400), query="four", map=np.ones((2, 2)), grid=Grid(2, 2, 0.0, 0.0, 20.0, 200.0)),
    ]
    figure = viz.draw_gallery(tmp_path / "a.png", entries, title="All", width=6.0)
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "All"
    assert [text for text in texts if text in {"one", "two", "three", "four"}] == ["one", "two", "three", "four"]
    assert texts.count("IoU 0.50") == 1
    assert texts.count("no box") == 1  # without a ground truth nothing is missed
    assert texts.count("no box, miss") == 1
    assert "1 attention in a cell; one scale for all maps" in texts
    assert Image.open(tmp_path / "a.png").width == math.ceil((6.0 + 2 * theme.MARGIN) * 120)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.55, 3.0), min_size=1, max_size=40))
def test_gallery_rows_hold_every_picture_once_and_fit_the_width(aspects):
    rows = gallery._gallery_rows(aspects, 10.0, 2.0)
    assert [index for row in rows for index in row.indices] == list(range(len(aspects)))
    for row in rows:
        used = row.height * sum(aspects[index] for index in row.indices) + theme.GAP * (len(row.indices) - 1)
        assert used <= 10.0 + 1e-6
        assert 1.0 < row.height <= 2.5 + 1e-9


def test_gallery_refuses_nothing_and_maps_without_grid():
    with pytest.raises(ValueError, match="Expected at least one entry for a gallery, but got none"):
        viz.draw_gallery(None, [])
    with pytest.raises(
        ValueError, match="Expected a gallery entry with a map to have a grid, but got none for 'a cat'"
    ):
        gallery_entry(map=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"Expected the map of gallery entry 'a cat' to fit the grid's 3 x 2 cells"):
        gallery_entry(map=np.ones((2, 2)), grid=Grid(3, 2, 0.0, 0.0, 1.0, 1.0))


def test_elbow_counts_the_kept_heads(tmp_path):
    sums = np.array([[0.1, 0.2], [0.3, 0.4]])
    figure = viz.draw_elbow(tmp_path / "a.png", sums, 0.3)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["chord", "kept: 2 of 4 heads", "threshold 0.3"]
    curve = next(line for line in figure.axes[0].lines if len(line.get_ydata()) == 4)
    assert curve.get_ydata().tolist() == [0.1, 0.2, 0.3, 0.4]


def test_layer_head_map_puts_layers_down_and_frames_the_marked(tmp_path):
    values = np.zeros((5, 40))
    values[3, 7] = 0.9
    figure = viz.draw_layer_head_map(tmp_path / "a.png", values, "Sum", "mean sum", marked=[(3, 7)])
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "Sum\nframed: fixed heads L3H7"
    assert axes.images[0].get_array()[3, 7] == 0.9
    assert axes.yaxis_inverted()
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (6.5, 2.5, 1, 1)
    with pytest.raises(ValueError, match="Expected marked heads to lie in 5 layers x 40 heads, but got L5H0"):
        viz.draw_layer_head_map(None, values, "Sum", "mean sum", marked=[(5, 0)])


def test_gallery_marks_misses_in_words_and_colour():
    truth = (0.0, 0.0, 20.0, 40.0)
    entries = [
        gallery_entry(query="hit", box_xyxy=(0.0, 0.0, 20.0, 20.0), truth_xyxy=truth),
        gallery_entry(query="miss", box_xyxy=(0.0, 0.0, 20.0, 19.9), truth_xyxy=truth),
    ]
    figure = viz.draw_gallery(None, entries, subtitle="the first two")
    colors = {text.get_text(): text.get_color() for text in figure.texts}
    assert colors["IoU 0.50"] == theme.QUIET
    assert colors["IoU 0.50, miss"] == theme.VERMILION
    assert "the first two" in colors


NAMES, FREQUENCY = ["L1H2", "L3H4", "L5H6", "L7H8"], [0.9, 0.3, 0.3, 0.02]


def test_bars_call_fixed_the_heads_that_are_used_and_mark_ties(tmp_path):
    options = {"fixed": ["L1H2", "L5H6", "L9H9"], "num_samples": 1200, "ends_label": "95 % intervals"}
    ends = [0.7, 0.3, 0.1, 0.0], [0.95, 0.3, 0.5, 0.1]
    figure = viz.draw_head_frequency_bars(tmp_path / "a.png", NAMES, FREQUENCY, ends, **options)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    bars = list(axes.patches)
    assert [bar.get_width() for bar in bars] == FREQUENCY
    assert [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in bars] == [
        theme.BLUE,
        theme.FAINT,
        theme.BLUE,
        theme.FAINT,
    ]
    assert [text.get_text().split() for text in axes.texts] == [["90.0%"], ["30.0%", "tie"], ["30.0%", "tie"], ["2.0%"]]
    words_below = " ".join(text.get_text() for text in figure.texts)
    assert "n = 1,200 samples" in words_below
    assert "whiskers: 95 % intervals" in words_below
    whiskers = axes.collections[0].get_segments()
    assert [line[:, 0].tolist() for line in whiskers] == [pytest.approx(pair) for pair in zip(*ends)]
    assert "fixed, but not among these: L9H9" in words_below


def test_bars_without_intervals_speak_of_no_whiskers():
    figure = viz.draw_head_frequency_bars(None, NAMES, [0.9, 0.5, 0.3, 0.1], fixed=["L1H2"])
    colors = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in figure.axes[0].patches]
    assert colors == [theme.BLUE, *[theme.FAINT] * 3]
    assert not figure.texts


def test_curves_say_what_their_bands_are(tmp_path):
    curves = np.array([[0.5, 0.6, 0.7], [0.1, 0.2, 0.2]])
    counts = [10, 100, 1000]
    ends = (curves * 0.9, curves * 1.2)
    figure = viz.draw_frequency_vs_samples(tmp_path / "b.png", counts, curves, ends, NAMES[:2])
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    reached = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (reached.min(), reached.max()) == pytest.approx((0.45, 0.84))
    words = [text.get_text() for text in figure.texts]
    assert words == ["bands: 95 % of the data sets of that size, pictures drawn again"]
    assert not viz.draw_frequency_vs_samples(None, counts, curves, None, NAMES[:2]).texts


def audit_arguments(**changes):
    frequency, iou = np.zeros((3, 4)), np.full((3, 4), 0.2)
    frequency[1, 2], iou[1, 2] = 0.8, 0.7
    iou[0, 1], iou[2, 3] = 0.9, 0.8
    bars = [viz.AuditBar("fixed heads", 0.7, 0.6, 0.75), viz.AuditBar("random heads", 0.2, 0.1, 0.3)]
    arguments = {"frequency": frequency, "iou": iou, "fixed": [(1, 2)], "spearman": 0.61, "p_value": 1e-5, "bars": bars}
    return {**arguments, **changes}


def test_audit_names_the_fixed_and_the_best_heads_and_leaves_some_hollow(tmp_path):
    figure = viz.draw_head_audit(tmp_path / "c.png", **audit_arguments(skip_layers=1))
    scatter = figure.axes[0]
    assert scatter.get_title(loc="left") == "Frequency against IoU\nSpearman +0.61, p < 0.001"
    assert sorted(text.get_text() for text in scatter.texts) == ["L0H1", "L1H2", "L2H3"]
    assert [len(points.get_offsets()) for points in scatter.collections] == [4, 7, 1]  # hollow, filled, fixed
    signs = [text.get_text() for text in figure.legends[0].get_texts()]
    assert signs == ["fixed heads", "other heads", "layers below 1, left out", "best 2 by IoU"]
    figure = viz.draw_head_audit(None, **audit_arguments(spearman=math.nan))
    assert "no Spearman" in figure.axes[0].get_title(loc="left")


def test_audit_gives_every_bar_its_interval_and_says_what_and_how_many(tmp_path):
    control = [viz.AuditBar("own target", 0.7, 0.6, 0.8), viz.AuditBar("other target", 0.1, 0.0, 0.2)]
    words_given = {"verdict": "Cannot tell: 8 rows.", "interval_label": "95 % interval, pictures resampled"}
    figure = viz.draw_head_audit(
        tmp_path / "c.png", **audit_arguments(control_bars=control, num_rows=8, num_pictures=1, **words_given)
    )
    _, bars, controls = figure.axes
    assert [text.get_text() for text in bars.texts] == ["0.70  [0.60, 0.75]", "0.20  [0.10, 0.30]"]
    assert [text.get_text() for text in controls.texts] == ["0.70  [0.60, 0.80]", "0.10  [0.00, 0.20]"]
    assert len(bars.containers) == 3  # the bars, and whiskers for each
    assert figure.get_suptitle() == "Cannot tell: 8 rows."
    words_below = " ".join(text.get_text() for text in figure.texts)
    assert "n = 8 rows, 1 picture · whiskers: 95 % interval, pictures resampled" in words_below


def drawn_texts(figure):
    """All texts but the labels of ticks beyond the ends of an axis, which are not drawn."""
    texts = [*figure.texts, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in texts if text.get_text().strip()]


def test_numbers_of_the_audit_lie_on_no_whisker_and_no_text_on_another(tmp_path):
    bars = [
        viz.AuditBar(f"random heads of the same layers {index}", 0.1 * index, 0.0, 0.1 * index + 0.2)
        for index in range(1, 7)
    ]
    figure = viz.draw_head_audit(
        tmp_path / "c.png", **audit_arguments(bars=bars, control_bars=bars[:2], verdict="v " * 120, num_rows=9)
    )
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes[1:]:
        longest = max(bar.high for bar in bars[: len(axes.texts)])
        end_px = axes.transData.transform((longest, 0))[0]
        assert all(text.get_window_extent(renderer).x0 > end_px for text in axes.texts)
    boxes = [text.get_window_extent(renderer) for text in drawn_texts(figure)]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1
        for other in boxes[:index]:
            assert (
                min(box.x1, other.x1) - max(box.x0, other.x0) < 1 or min(box.y1, other.y1) - max(box.y0, other.y0) < 1
            )


def test_names_are_put_where_they_cover_neither_points_nor_each_other():
    points = np.array([[1.0, 1.0], [1.0, 1.0], [1.15, 1.0], [1.0, 1.12], [2.0, 2.0]])
    middles = label_places.place_labels([(1.0, 1.0), (1.0, 1.0)], [(0.4, 0.12)] * 2, points, (0.0, 0.0, 3.0, 3.0))
    rects = [(x - 0.2, y - 0.06, x + 0.2, y + 0.06) for x, y in middles]
    for left, bottom, right, top in rects:
        assert not ((points > (left, bottom)) & (points < (right, top))).all(axis=1).any()
    (left, bottom, right, top), (other_left, other_bottom, other_right, other_top) = rects
    assert right <= other_left or other_right <= left or top <= other_bottom or other_top <= bottom


def test_audit_tells_of_other_samples_that_the_frequency_is_over():
    counts = {"num_rows": 60, "num_pictures": 20}
    words = [viz.draw_head_audit(None, **audit_arguments(num_samples=n, **counts)).texts for n in (60, 90)]
    same, other = (" ".join(text.get_text() for text in texts) for texts in words)
    assert "n = 60 rows, 20 pictures" in same
    assert "frequency over" not in same
    assert "frequency over 90 samples" in other


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0.5, 0.4, None), r"Expected the bar 'a' to have an interval with low <= high, but got low=0\.4, high=None"),
        ((0.5, 0.7, 0.6), r"Expected the bar 'a' to have an interval with low <= high, but got low=0\.7"),
        ((math.nan,), "Expected the bar 'a' to have finite numbers"),
        ((0.5, math.nan, 0.6), "Expected the bar 'a' to have finite numbers"),
    ],
    ids=["half", "reversed", "nan", "nan-end"],
)
def test_bars_with_half_an_interval_or_a_wrong_one_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        viz.AuditBar("a", *numbers)


def test_bar_of_a_single_picture_has_no_interval_and_a_value_may_lie_outside_its_own():
    assert viz.AuditBar.with_ends("a", 0.5, math.nan, math.nan) == viz.AuditBar("a", 0.5)
    bars = [viz.AuditBar.with_ends("a", 0.5, 0.6, 0.7), viz.AuditBar("b", 0.5)]
    axes = viz.draw_head_audit(None, **audit_arguments(bars=bars)).axes[1]
    assert [text.get_text() for text in axes.texts] == ["0.50  [0.60, 0.70]", "0.50"]
    (whisker,) = axes.collections
    assert np.allclose(whisker.get_segments()[0][:, 0], [0.6, 0.7])


def test_survey_figures_say_over_how_many_samples(tmp_path):
    values = np.arange(6.0).reshape(2, 3) / 6
    figures = [
        viz.draw_elbow(tmp_path / "a.png", values, 0.3, num_samples=1),
        viz.draw_layer_head_map(tmp_path / "b.png", values, "Sum", "sum", num_samples=1),
    ]
    assert [[text.get_text() for text in figure.texts] for figure in figures] == [["n = 1 sample"]] * 2


DRAW_ALL_KINDS = """
import sys, numpy as np, viz
from PIL import Image
out = sys.argv[1]
for kind in ("png", "pdf", "svg"):
    viz.draw_layer_head_map(f"{out}/map.{kind}", np.arange(12.0).reshape(3, 4), "t", "c", marked=[(1, 1)])
    viz.draw_gallery(f"{out}/gallery.{kind}", [viz.GalleryEntry(Image.new("RGB", (40, 30), "red"), "x")])
    viz.draw_head_audit(f"{out}/audit.{kind}", np.eye(3), np.eye(3), fixed=[(1, 1)], spearman=0.1, p_value=0.5,
                        bars=[viz.AuditBar("a", 0.5, 0.4, 0.6)])
"""


def test_every_format_has_the_same_bytes_in_every_run(tmp_path):
    root = Path(viz.__file__).parent
    contents = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        out.mkdir()
        environment = {"PATH": "/usr/bin", "PYTHONPATH": str(root), "HOME": str(tmp_path), "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", DRAW_ALL_KINDS, str(out)], capture_output=True, text=True, env=environment, cwd=root
        )
        assert done.returncode == 0, done.stderr
        contents.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert len(contents[0]) == 9
    assert contents[0] == contents[1]
    assert contents[0]["map.svg"].startswith(b"<?xml")
    assert not any(b"<dc:date>" in content for content in contents[0].values())


def test_write_formats_writes_each_format_beside_the_others_or_none(tmp_path):
    figure = viz.draw_elbow(None, np.arange(9.0) / 9, 0.4)
    written = viz.write_formats(figure, tmp_path / "v1.5_top3.png", ["png", "pdf", "svg"])
    assert [path.name for path in written] == ["v1.5_top3.png", "v1.5_top3.pdf", "v1.5_top3.svg"]
    assert [path.read_bytes()[:4] for path in written] == [b"\x89PNG", b"%PDF", b"<?xm"]
    with pytest.raises(ValueError, match=r"Expected the path of a figure to end in \.png, \.pdf or \.svg"):
        viz.write_formats(figure, tmp_path / "other.png", ["png", "eps"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)


@pytest.mark.parametrize("dpi", [60, 240])
def test_dpi_sets_the_pixels_of_a_page(tmp_path, dpi):
    figure = viz.draw_elbow(tmp_path / "a.png", np.arange(9.0) / 9, 0.4, dpi=dpi)
    assert Image.open(tmp_path / "a.png").width == round(3.6 * dpi)
    assert figure.dpi == dpi
    draw(tmp_path / "b.png", dpi=dpi)
    assert Image.open(tmp_path / "b.png").width > 10 * dpi


def test_importing_viz_does_not_import_matplotlib():
    code = "import sys, viz; assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules"
    root = Path(viz.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("power", [6, 1 / 6])
def test_legend_of_the_elbow_leaves_the_curve_free(power):
    figure = viz.draw_elbow(None, np.linspace(0, 1, 64) ** power, 0.5)
    axes = figure.axes[0]
    figure.canvas.draw()
    legend = axes.get_legend().get_window_extent()
    curve = axes.transData.transform(axes.lines[1].get_xydata())
    assert not any(legend.contains(x, y) for x, y in curve)


@pytest.mark.parametrize(("shape", "numbered"), [((4, 8), True), ((10, 10), True), ((4, 16), False), ((32, 4), False)])
def test_cells_of_a_map_carry_numbers_where_these_do_not_touch(shape, numbered):
    figure = viz.draw_layer_head_map(None, np.full(shape, 0.987), "sums", "sum")
    numbers = figure.axes[0].texts
    assert len(numbers) == (shape[0] * shape[1] if numbered else 0)
    figure.canvas.draw()
    boxes = [number.get_window_extent() for number in numbers[: shape[1]]]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))


def test_text_of_data_figures_stays_on_the_page(tmp_path):
    title = "a rather long title of a figure which will not fit on one line of a narrow column"
    values = np.random.default_rng(0).random((32, 32))
    figure = viz.draw_layer_head_map(tmp_path / "a.png", values, title, "x", marked=[(14, head) for head in range(12)])
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_size_inches()[0]
    assert box.y1 <= figure.get_size_inches()[1]


def test_data_figures_refuse_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match="Expected mean_sums to hold finite numbers"):
        viz.draw_elbow(None, np.array([0.1, np.nan]), 0.1)
    with pytest.raises(ValueError, match="Expected values to have 2 dimensions, but got the shape"):
        viz.draw_layer_head_map(None, np.ones(3), "t", "c")
    with pytest.raises(ValueError, match=r"Expected frequency to have the shape \[2\], but got \[1\]"):
        viz.draw_head_frequency_bars(None, ["a", "b"], [0.1])
    with pytest.raises(ValueError, match=r"Expected low ends to have the shape \[1\], but got \[2\]"):
        viz.draw_head_frequency_bars(None, ["a"], [0.1], ([0.1, 0.2], [0.3]))
    with pytest.raises(ValueError, match="Expected every interval to have low <= high, but got one the other way"):
        viz.draw_head_frequency_bars(None, ["a"], [0.1], ([0.2], [0.1]))
    with pytest.raises(ValueError, match=r"Expected frequency to have the shape \[1, 2\], but got \[2, 2\]"):
        viz.draw_frequency_vs_samples(None, [1, 2], np.ones((2, 2)), None, ["a"])
    audit = {"fixed": [], "spearman": 0.0, "p_value": 1.0, "bars": [viz.AuditBar("a", 1.0)]}
    with pytest.raises(ValueError, match=r"Expected iou to have the shape \[2, 2\], but got \[2, 3\]"):
        viz.draw_head_audit(None, np.ones((2, 2)), np.ones((2, 3)), **audit)
    with pytest.raises(ValueError, match="Expected fixed heads to lie in 2 layers x 2 heads, but got L2H0"):
        viz.draw_head_audit(None, np.ones((2, 2)), np.ones((2, 2)), **{**audit, "fixed": [(2, 0)]})
    with pytest.raises(ValueError, match="Expected at least one bar in the figure of an audit, but got none"):
        viz.draw_head_audit(None, np.ones((2, 2)), np.ones((2, 2)), **{**audit, "bars": []})


def test_missing_letters_are_boxes_and_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, logger="matplotlib.font_manager"):
        assert words.printable("a \U00013000 b\x07") == "a □ b"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
