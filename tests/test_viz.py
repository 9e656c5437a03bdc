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
from figures import gallery, layout, overlay, theme
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
    figure = draw(with_truth, truth_xyxy=(10.0, 20.0, 110.0, 120.0))
    assert "IoU 0.50" in [text.get_text() for text in figure.texts]
    assert "ground truth" in [text.get_text() for text in figure.texts]
    assert without.read_bytes() != with_truth.read_bytes()


def test_top_heads_names_every_head_with_entropy_and_sum():
    texts = [text.get_text() for text in draw(None, count=3, query="the bird", model_name="a/model").texts]
    assert {"“the bird”", "L14H0", "L14H1", "L14H2", "Combined"} <= set(texts)
    assert texts.count("entropy 0.500 · sum 0.300") == 2
    assert "entropy ∞ · sum 0.300" in texts
    assert "a/model · 640 × 480 px · heads chosen on this picture · box 10, 20, 110, 220" in texts


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


def test_drawing_imports_no_pyplot_and_show_needs_no_display():
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
    environment = {"MPLBACKEND": "agg", "PATH": "/usr/bin", "PYTHONPATH": str(root), "HOME": "/tmp"}
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


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svg"])
def test_paths_of_other_kinds_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"Expected the path of a figure to end in \.png or \.pdf"):
        draw(tmp_path / name)


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


def test_resample_maps_cells_to_pixels_and_leaves_the_rest():
    # A centre crop: the grid covers x 100 to 300 of a picture 400 wide.
    grid = Grid(4, 4, 100.0, 0.0, 50.0, 50.0)
    map_ = np.zeros((4, 4), np.float32)
    map_[1, 2] = 1
    heat = overlay._resample(map_, grid, (400, 200), (200, 100))
    assert heat.shape == (100, 200)
    assert (heat[:, :50] == 0).all()
    assert (heat[:, 150:] == 0).all()
    row, col = np.unravel_index(heat.argmax(), heat.shape)
    # Cell (1, 2) covers x 200 to 250 and y 50 to 100: at half size its middle is (112.5, 37.5).
    assert abs(col + 0.5 - 112.5) <= 1
    assert abs(row + 0.5 - 37.5) <= 1


def test_resample_of_a_level_map_is_level_on_what_the_grid_covers():
    grid = Grid(5, 7, -13.0, 20.5, 31.0, 17.0)
    heat = overlay._resample(np.full((5, 7), 0.25, np.float32), grid, (150, 130), (150, 130))
    assert np.allclose(heat[21:105], 0.25)
    assert (heat[:20] == 0).all()
    assert (heat[106:] == 0).all()


def test_resample_off_the_picture_is_empty():
    assert not overlay._resample(np.ones((2, 2)), Grid(2, 2, 500.0, 0.0, 10.0, 10.0), (100, 100), (50, 50)).any()


def test_overlay_keeps_pixels_without_attention_and_gets_stronger_with_it():
    pixels = np.full((40, 40, 3), 128, np.uint8)
    grid = Grid(4, 4, 0.0, 0.0, 10.0, 10.0)
    assert (overlay.lay_over(pixels, np.zeros((4, 4)), grid, (40, 40)) == pixels).all()
    ramp = np.repeat(np.arange(4.0)[None], 4, axis=0)
    shown = overlay.lay_over(pixels, ramp, grid, (40, 40)).astype(int)
    assert (shown[:, 0] == 128).all()
    change = np.abs(shown - 128).sum(axis=2)[20]
    assert change[39] > change[20] > change[8]


def test_border_segments_frame_the_mask():
    mask = np.zeros((3, 4), bool)
    mask[1, 1:3] = True
    segments = overlay.border_segments(mask, Grid(3, 4, 5.0, -2.0, 10.0, 20.0))
    assert len(segments) == 6
    assert segments.min(axis=(0, 1)).tolist() == [15.0, 18.0]
    assert segments.max(axis=(0, 1)).tolist() == [35.0, 38.0]


def gallery_entry(size=(60, 40), query="a cat", **fields):
    return viz.GalleryEntry(Image.new("RGB", size, GREEN), query, **fields)


def test_gallery_shows_every_query_with_its_score(tmp_path):
    entries = [
        gallery_entry(query="one", box_xyxy=(0.0, 0.0, 20.0, 20.0), truth_xyxy=(0.0, 0.0, 20.0, 40.0)),
        gallery_entry((40, 60), query="two"),
        gallery_entry((400, 40), query="three", box_xyxy=(1.0, 1.0, 9.0, 9.0)),
        gallery_entry((40, 400), query="four", map=np.ones((2, 2)), grid=Grid(2, 2, 0.0, 0.0, 20.0, 200.0)),
    ]
    figure = viz.draw_gallery(tmp_path / "a.png", entries, title="All", width=6.0)
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "All"
    assert [text for text in texts if text in {"one", "two", "three", "four"}] == ["one", "two", "three", "four"]
    assert texts.count("IoU 0.50") == 1
    assert texts.count("no box") == 2
    assert "attention, 0 to each map's peak" in texts
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
    assert axes.get_title(loc="left") == "Sum\nframed: L3H7"
    assert axes.images[0].get_array()[3, 7] == 0.9
    assert axes.yaxis_inverted()
    (frame,) = axes.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (6.5, 2.5, 1, 1)
    with pytest.raises(ValueError, match="Expected marked heads to lie in 5 layers x 40 heads, but got L5H0"):
        viz.draw_layer_head_map(None, values, "Sum", "mean sum", marked=[(5, 0)])


def test_frequency_bars_and_curves_and_audit_are_written(tmp_path):
    names, frequency = ["L1H2", "L3H4", "L5H6", "L7H8"], [0.9, 0.5, 0.3, 0.02]
    figure = viz.draw_head_frequency_bars(tmp_path / "a.png", names, frequency, [0.1, 0.0, 0.05, 0.0])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names
    assert [patch.get_width() for patch in figure.axes[0].patches] == frequency
    curves = np.array([[0.5, 0.6, 0.7], [0.1, 0.2, 0.2]])
    figure = viz.draw_frequency_vs_samples(tmp_path / "b.png", [10, 100, 1000], curves, curves * 0.1, names[:2])
    assert figure.axes[0].get_xscale() == "log"
    frequency_map, iou = np.zeros((2, 3)), np.full((2, 3), 0.2)
    frequency_map[1, 2], iou[1, 2] = 0.8, 0.7
    bars = {"bar_names": ["fixed", "random", "whole image"], "bar_values": [0.7, 0.2, 0.1], "bar_sd": [0.0, 0.1, 0.0]}
    audit = {"fixed": [(1, 2)], "spearman": 0.61, "p_value": 1e-5, **bars}
    figure = viz.draw_head_audit(tmp_path / "c.png", frequency_map, iou, **audit)
    assert figure.axes[0].get_title(loc="left") == "Spearman +0.61, p < 0.001"
    assert "L1H2" in [text.get_text() for text in figure.axes[0].texts]
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == [0, 5, 1]  # hollow, grey, fixed
    figure = viz.draw_head_audit(None, frequency_map, iou, skip_layers=1, **audit)
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == [3, 2, 1]
    assert figure.axes[0].get_xlabel() == "selection frequency (hollow: layers below 1, left out)"
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("a.png", "b.png", "c.png"))


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
    with pytest.raises(ValueError, match=r"Expected sd to have the shape \[1\], but got \[2\]"):
        viz.draw_head_frequency_bars(None, ["a"], [0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"Expected frequency to have the shape \[1, 2\], but got \[2, 2\]"):
        viz.draw_frequency_vs_samples(None, [1, 2], np.ones((2, 2)), None, ["a"])
    audit = {"fixed": [], "spearman": 0.0, "p_value": 1.0, "bar_names": ["a"], "bar_values": [1.0]}
    with pytest.raises(ValueError, match=r"Expected iou to have the shape \[2, 2\], but got \[2, 3\]"):
        viz.draw_head_audit(None, np.ones((2, 2)), np.ones((2, 3)), **audit)


def test_missing_letters_are_boxes_and_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, logger="matplotlib.font_manager"):
        assert words.printable("a \U00013000 b\x07") == "a □ b"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
