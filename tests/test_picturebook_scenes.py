"""Tests of the picture-book world: layout, drawing, masks and boxes, error messages."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from picturebook import sampling, scenes
from picturebook.drawing import render
from picturebook.sampling import sample_aspect, sample_scene
from picturebook.scenes import (
    COLORS,
    KINDS,
    MIN_GAP,
    PATTERNS,
    SUPPORTS,
    Background,
    Rendered,
    Scene,
    SceneObject,
    Support,
    example_scenes,
)
from picturebook.shapes import support_parts

PAPER = Background((230, 240, 250), (250, 245, 230), seed=1)
BALL = SceneObject("ball", "red", "plain", "small", (0.1, 0.1, 0.3, 0.3))
ASPECTS = [(1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.0, 9 / 16), (9 / 16, 1.0), (1.0, 1 / 3), (1 / 3, 1.0)]


def one_object_scene(kind: str, pattern: str = "plain", color: str = "blue", **details) -> Scene:
    thing = SceneObject(kind, color, pattern, "big", (0.3, 0.3, 0.66, 0.66), **details)
    return Scene((1.0, 1.0), PAPER, (thing,))


def gap(first: tuple, second: tuple) -> float:
    """Brute-force gap of two frames: the larger of the horizontal and the vertical one."""
    horizontal = max(first[0] - second[2], second[0] - first[2])
    vertical = max(first[1] - second[3], second[1] - first[3])
    return max(horizontal, vertical)


def test_same_seed_gives_same_scene_and_picture():
    first, second = (sample_scene(random.Random(3)) for _ in range(2))
    assert first == second
    assert first != sample_scene(random.Random(4))
    one, two = render(first, long_side=96), render(second, long_side=96)
    assert np.array_equal(np.asarray(one.image), np.asarray(two.image))
    assert np.array_equal(one.masks, two.masks)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("supports_probability", [0.0, 1.0])
def test_objects_lie_inside_and_keep_their_gap(aspect, supports_probability):
    for seed in range(25):
        scene = sample_scene(random.Random(seed), aspect, supports_probability=supports_probability)
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.frame
            assert min(x0, y0) >= -1e-9
            assert x1 <= aspect[0] + 1e-9
            assert y1 <= aspect[1] + 1e-9
            assert 0.84 < (x1 - x0) / (y1 - y0) < 1.16
        for first, second in combinations(scene.objects, 2):
            assert gap(first.frame, second.frame) >= MIN_GAP - 1e-6


@pytest.mark.parametrize("aspect", ASPECTS)
def test_boxes_are_tight_and_masks_disjoint_at_any_shape(aspect):
    scene = sample_scene(random.Random(5), aspect, supports_probability=1.0)
    drawn = render(scene, long_side=128, supersample=2)
    assert max(drawn.image.size) == 128
    assert drawn.masks.shape == (len(scene.objects), drawn.image.height, drawn.image.width)
    assert drawn.masks.sum(axis=0).max() == 1
    for mask, (x0, y0, x1, y1) in zip(drawn.masks, drawn.boxes_xyxy):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_touches_all_sides_of_its_frame(kind):
    drawn = render(one_object_scene(kind), long_side=300)
    assert np.allclose(drawn.boxes_xyxy[0], (90, 90, 198, 198), atol=2)


@pytest.mark.parametrize("flipped", [False, True])
def test_flipping_mirrors_the_mask(flipped):
    mask = render(one_object_scene("dog", flipped=flipped), long_side=100).masks[0]
    # The dog's head is the heavy end of its upper half.
    upper = mask[30:48, 30:66].sum(axis=0)
    assert (upper[:18].sum() > upper[18:].sum()) is not flipped


@pytest.mark.parametrize("seed", range(6))
def test_resolution_does_not_move_boxes(seed):
    scene = sample_scene(random.Random(seed), aspect=(1.0, 0.75))
    large, small = render(scene, (640, 480)), render(scene, (128, 96))
    for big_box, small_box in zip(large.boxes_xyxy, small.boxes_xyxy):
        assert np.abs(np.array(big_box) / 5 - small_box).max() <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_kind_shows_its_pattern(kind, pattern):
    plain, drawn = (render(one_object_scene(kind, name), long_side=128, supersample=2) for name in ("plain", pattern))
    assert np.array_equal(plain.masks, drawn.masks)
    darker = np.asarray(drawn.image, int).sum(axis=2) < np.asarray(plain.image, int).sum(axis=2) - 60
    share = darker[drawn.masks[0]].mean()
    assert not darker[~drawn.masks[0]].any()
    assert share == 0 if pattern == "plain" else 0.15 < share < 0.6


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("kind", KINDS)
def test_colour_covers_most_of_a_plain_object(kind, color):
    drawn = render(one_object_scene(kind, color=color), long_side=128, supersample=2)
    pixels = np.asarray(drawn.image, float)[drawn.masks[0]]
    names = list(COLORS)
    distance = np.linalg.norm(pixels[:, None] - np.array(list(COLORS.values()), float)[None], axis=2)
    nearest = Counter(names[index] for index in distance.argmin(axis=1))
    assert nearest.most_common(1)[0][0] == color


def test_mask_is_half_coverage():
    scene = Scene((1.0, 1.0), PAPER, (replace(BALL, kind="box", frame=(0.1, 0.1, 0.304, 0.306)),))
    drawn = render(scene, long_side=100, supersample=8)
    # 30.4 covers 0.4 of column 30, 30.6 covers 0.6 of row 30.
    assert drawn.boxes_xyxy[0][2:] == (30, 31)


def test_collar_is_a_contrasting_band_at_the_neck():
    for kind in scenes.COLLARED_KINDS:
        bare, worn = (
            np.asarray(render(one_object_scene(kind, collar=collar), long_side=128).image, int)
            for collar in (False, True)
        )
        rows, columns = np.nonzero(np.abs(bare - worn).sum(axis=2) > 150)
        assert len(rows) >= 40
        assert 45 < rows.mean() < 72
        assert columns.max() - columns.min() >= 8


@pytest.mark.parametrize("seed", range(20))
def test_binding_needs_color_and_kind_together(seed):
    things = sample_scene(random.Random(seed), composition="binding").objects
    colors, kinds, patterns = (sorted({getattr(t, name) for t in things}) for name in ("color", "kind", "pattern"))
    assert (len(things), len(colors), len(kinds), len(patterns)) == (4, 2, 2, 2)
    table = {(colors.index(t.color), kinds.index(t.kind)): patterns.index(t.pattern) for t in things}
    assert len(table) == 4
    assert table[0, 0] ^ table[0, 1] == 1
    assert table[0, 0] ^ table[1, 0] == 1
    assert table[0, 0] == table[1, 1]


def test_other_compositions():
    for seed in range(10):
        one_kind = sample_scene(random.Random(seed), composition="one_kind").objects
        assert (len(one_kind), len({t.kind for t in one_kind}), len({t.color for t in one_kind})) == (4, 1, 4)
        one_color = sample_scene(random.Random(seed), composition="one_color").objects
        assert (len(one_color), len({t.kind for t in one_color}), len({t.color for t in one_color})) == (4, 4, 1)
        assert 2 <= len(sample_scene(random.Random(seed), composition="free").objects) <= 5
        assert len(sample_scene(random.Random(seed), num_objects=3).objects) == 3


def test_sampled_attributes_are_balanced():
    things = [t for seed in range(300) for t in sample_scene(random.Random(seed)).objects]
    for name, values in (("kind", KINDS), ("color", COLORS), ("pattern", PATTERNS)):
        counts = Counter(getattr(t, name) for t in things)
        assert all(abs(counts[value] * len(values) / len(things) - 1) < 0.35 for value in values)
    pets = [t for t in things if t.kind in scenes.COLLARED_KINDS]
    assert 0.2 < sum(t.collar for t in pets) / len(pets) < 0.4
    assert not any(t.collar for t in things if t not in pets)
    assert 0.2 < sum(t.size == "big" for t in things) / len(things) < 0.4


def test_objects_stand_on_supports():
    seen = Counter()
    for seed in range(60):
        scene = sample_scene(random.Random(seed), supports_probability=1.0)
        (support,) = scene.background.supports
        standing = [t for t in scene.objects if t.support is not None]
        assert 1 <= len(standing) <= 2
        seen[support.kind] += 1
        for thing in standing:
            below = thing.frame[3] - support.top_at((thing.frame[0] + thing.frame[2]) / 2)
            assert thing.support == support.kind
            assert 0 <= below < (0.03 if support.kind != "floor" else support.thickness)
        for thing in (t for t in scene.objects if t.support is None):
            assert not sampling._touches_support(thing.frame, support)
    assert set(seen) == set(SUPPORTS)
    assert not sample_scene(random.Random(0), supports_probability=0.0).background.supports


@pytest.mark.parametrize("side", ["left", "right"])
def test_twigs_and_leaves_stay_in_the_reserved_extent(side):
    support = Support("branch", 0.5, 0.0, 0.6, 0.04, 0.02, side)
    scene = Scene((0.6, 1.0), PAPER, ())
    points = np.concatenate([points for _, points in support_parts(support, scene)])
    x0, y0, x1, y1 = sampling._branch_extent(support)
    assert y0 <= points[:, 1].min()
    assert points[:, 1].max() <= y1
    free_end = points[:, 0].max() <= x1 if side == "left" else points[:, 0].min() >= x0
    assert free_end


@pytest.mark.parametrize("kind", SUPPORTS)
def test_support_is_drawn_behind_the_objects(kind):
    style = {"branch": "left", "floor": "tile", "hill": "grass"}[kind]
    support = Support(kind, 0.6, 0.0, 1.0, 0.05 if kind == "branch" else 0.4, 0.02, style)
    bare = Scene((1.0, 1.0), PAPER, (replace(BALL, frame=(0.4, 0.41, 0.6, 0.61)),))
    placed = Scene(
        (1.0, 1.0), replace(PAPER, supports=(support,)), (replace(BALL, frame=(0.4, 0.41, 0.6, 0.61), support=kind),)
    )
    one, two = render(bare, long_side=128), render(placed, long_side=128)
    assert np.array_equal(one.masks, two.masks)
    changed = np.abs(np.asarray(one.image, int) - np.asarray(two.image)).sum(axis=2) > 20
    assert changed.mean() > 0.015
    # Only the rim blends with what is behind it.
    assert changed[one.masks[0]].mean() < 0.05


def test_examples_single_out_one_object():
    examples = example_scenes()
    assert list(examples) == ["bird", "cat", "dog"]
    assert all(render(scene, (640, 480)).image.size == (640, 480) for scene in examples.values())
    birds = [t for t in examples["bird"].objects if t.kind == "bird"]
    assert [t.support for t in birds] == ["branch"]
    cats = [t for t in examples["cat"].objects if t.kind == "cat"]
    assert [t.support for t in cats] == ["floor"]
    dogs = [t for t in examples["dog"].objects if t.kind == "dog"]
    assert sorted((t.size, t.collar) for t in dogs) == [("big", False), ("small", True)]


def test_aspects_have_a_long_side_of_one():
    drawn = {sample_aspect(random.Random(seed)) for seed in range(60)}
    assert all(max(aspect) == 1.0 for aspect in drawn)
    assert len(drawn) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cow"}, "Expected kind to be one of ball, .*, but got 'cow'"),
        ({"color": "pink"}, "Expected color to be one of red, .*, but got 'pink'"),
        ({"pattern": "wavy"}, "Expected pattern to be one of plain, .*, but got 'wavy'"),
        ({"size": "huge"}, "Expected size to be one of small, big, but got 'huge'"),
        ({"support": "roof"}, "Expected support to be one of branch, floor, hill, but got 'roof'"),
        ({"frame": (0.3, 0.1, 0.1, 0.3)}, "Expected frame to be x0, y0, x1, y1 with x0 < x1 .* but got"),
        ({"collar": True}, "Expected the wearer of a collar to be a cat or a dog, but got 'ball'"),
        ({"shade": 3.0}, r"Expected shade to be in \[0.5, 1.5\], but got 3.0"),
    ],
)
def test_object_errors(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BALL, **change)


def test_scene_errors():
    branch = Support("branch", 0.5, 0.0, 0.6, 0.04, 0.02, "left")
    things = tuple(replace(BALL, frame=(x, 0.3, x + 0.2, 0.5), support="branch") for x in (0.0, 0.3, 0.6))
    with pytest.raises(ValueError, match="Expected aspect to be .* longer side 1.0 .* but got"):
        Scene((640, 480), PAPER, ())
    with pytest.raises(ValueError, match="Expected the frame of object 0 to be inside the picture .* but got"):
        Scene((1.0, 0.5), PAPER, (replace(BALL, frame=(0.1, 0.4, 0.3, 0.6)),))
    with pytest.raises(ValueError, match="Expected objects 0 and 1 to be at least 0.02 apart, but got"):
        Scene((1.0, 1.0), PAPER, (BALL, replace(BALL, frame=(0.31, 0.1, 0.5, 0.3))))
    with pytest.raises(ValueError, match="Expected what objects stand on to be in the background .* but got"):
        Scene((1.0, 1.0), PAPER, (replace(BALL, support="hill"),))
    with pytest.raises(ValueError, match="Expected the objects standing on a support to be at most two, but got 3"):
        Scene((1.0, 1.0), replace(PAPER, supports=(branch,)), things)
    with pytest.raises(ValueError, match="Expected a background to be given at most one support, but got 2"):
        replace(PAPER, supports=(branch, branch))
    with pytest.raises(ValueError, match="Expected style of a branch to be one of left, right, but got 'wood'"):
        replace(branch, style="wood")
    with pytest.raises(ValueError, match="Expected support branch to be wider and thicker than 0, but got"):
        replace(branch, right=-1.0)


def test_sampling_errors():
    rng = random.Random(0)
    with pytest.raises(ValueError, match="Expected composition to be one of .* but got 'crowd'"):
        sample_scene(rng, composition="crowd")
    with pytest.raises(ValueError, match="Expected num_objects to be from 1 to 5, but got 9"):
        sample_scene(rng, composition="free", num_objects=9)
    with pytest.raises(ValueError, match="Expected num_objects to be 4 for 'binding', but got 3"):
        sample_scene(rng, composition="binding", num_objects=3)
    with pytest.raises(ValueError, match=r"Expected supports_probability to be in \[0, 1\], but got 2"):
        sample_scene(rng, supports_probability=2)
    with pytest.raises(ValueError, match="Expected aspect to be .* but got"):
        sample_scene(rng, aspect=(2.0, 1.0))


def test_layout_error(monkeypatch):
    monkeypatch.setattr(sampling, "_place_all", lambda *args: None)
    with pytest.raises(ValueError, match="Expected 4 objects to be placeable .* but got no layout"):
        sample_scene(random.Random(0), composition="binding")


def test_render_errors():
    scene = one_object_scene("cat")
    with pytest.raises(ValueError, match="Expected image_size_wh or long_side to be given, but got both"):
        render(scene, (64, 64), long_side=64)
    with pytest.raises(ValueError, match="Expected the long side to be at least 32 pixels, but got 8"):
        render(scene, long_side=8)
    with pytest.raises(ValueError, match="Expected image_size_wh to be of the scene's aspect .* but got"):
        render(scene, (640, 480))
    with pytest.raises(ValueError, match="Expected supersample to be at least 1, but got 0"):
        render(scene, supersample=0)
    drawn = render(scene, long_side=64)
    with pytest.raises(ValueError, match="Expected masks to be of shape .* but got"):
        Rendered(drawn.image, drawn.masks[:, :5], drawn.boxes_xyxy)
