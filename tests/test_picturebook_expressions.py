"""Referring expressions against an oracle that reads the words back."""

import random
import re

import pytest

from picturebook.expressions import (
    ANSWER_ORDER,
    TEMPLATES,
    all_words,
    answer_words,
    expressions_for,
    plural,
    sample_expressions,
)
from picturebook.sampling import sample_scene
from picturebook.scenes import COLORS, KINDS, PATTERNS, SIZES
from picturebook.vocabulary import split_words, vocabulary

SINGULAR = {plural(kind): kind for kind in KINDS} | {kind: kind for kind in KINDS}
SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1), "above": (1, -1), "below": (1, 1)}


def centre(thing):
    return (thing.frame[0] + thing.frame[2]) / 2, (thing.frame[1] + thing.frame[3]) / 2


def named(scene, words):
    """Objects that fit the attribute words."""
    found = list(scene.objects)
    for word in words:
        if word in SINGULAR:
            found = [o for o in found if o.kind == SINGULAR[word]]
        for name, known in (("color", COLORS), ("pattern", PATTERNS), ("size", SIZES)):
            if word in known:
                found = [o for o in found if getattr(o, name) == word]
    return found


def read_back(scene, text):
    """Indices of the objects that an expression means, found from its words alone."""
    relation = re.match(r"(.*) (left of|right of|above|below) (the .*)$", text)
    if relation:
        (anchor,) = named(scene, relation[3].split())
        axis, sign = SIDES[relation[2].split()[0]]
        like = [o for o in named(scene, relation[1].split()) if o is not anchor]
        found = [o for o in like if sign * (centre(o)[axis] - centre(anchor)[axis]) > 0]
        return [scene.objects.index(o) for o in found]
    found = named(scene, text.split())
    on = re.search(r"on the (branch|floor|hill)", text)
    if on:
        found = [o for o in found if o.support == on[1]]
    if "collar" in text:
        found = [o for o in found if o.collar]
    side = re.search(r"(?:^the|on the) (left|right|top|bottom)\b", text)
    if side and found:
        axis, sign = SIDES[side[1]]
        found = [max(found, key=lambda o: sign * centre(o)[axis])]
    return [scene.objects.index(o) for o in found]


@pytest.mark.parametrize("seed", range(60))
def test_each_expression_means_its_target_and_nothing_else(seed):
    rng = random.Random(seed)
    scene = sample_scene(rng)
    for target in range(len(scene.objects)):
        for expression in expressions_for(scene, target, rng):
            assert expression.target == target
            assert read_back(scene, expression.text) == [target], expression.text


def test_every_template_and_no_other_is_written():
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(40)]
    written = {e.template for s in scenes for e in sample_expressions(s, 30, rng)}
    assert written == set(TEMPLATES)
    only = {e.template for s in scenes for e in sample_expressions(s, 30, rng, {"color_kind": 1.0, "place": 1.0})}
    assert only == {"color_kind", "place"}


def test_answers_tell_what_was_not_said_and_lead_with_the_pattern():
    rng = random.Random(1)
    for _ in range(30):
        scene = sample_scene(rng)
        for expression in sample_expressions(scene, 30, rng):
            answer = answer_words(scene, expression)
            assert answer
            assert (
                not set(answer)
                & set(expression.text.split())
                & {*COLORS, *PATTERNS, *KINDS}
                - set(w for o in scene.objects if o is not scene.objects[expression.target] for w in (o.color, o.kind))
            )
            left = [name for name in ANSWER_ORDER if name not in expression.said]
            assert answer == [getattr(scene.objects[expression.target], name) for name in left]
            if "pattern" not in expression.said:
                assert answer[0] in PATTERNS


def test_sampling_is_deterministic_and_repeats_no_text():
    scene = sample_scene(random.Random(3))
    first = sample_expressions(scene, 10, random.Random(5))
    assert first == sample_expressions(scene, 10, random.Random(5))
    assert len({e.text for e in first}) == len(first) == 10


def test_color_and_kind_expressions_lead_the_sample():
    rng = random.Random(2)
    drawn = [e.template for _ in range(300) for e in sample_expressions(sample_scene(rng), 3, rng)]
    assert drawn.count("color_kind") > 1.5 * max(drawn.count(t) for t in TEMPLATES if t != "color_kind")


def test_the_vocabulary_knows_every_word():
    words = vocabulary()
    rng = random.Random(4)
    for _ in range(50):
        scene = sample_scene(rng)
        for expression in sample_expressions(scene, 30, rng):
            assert set(split_words(expression.text)) | set(answer_words(scene, expression)) <= set(words)
    assert set(all_words()) <= set(words)
    assert sorted(words.values()) == list(range(len(words)))
