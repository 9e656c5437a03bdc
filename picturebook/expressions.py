"""Referring expressions that single out one object of a scene, and the words that answer them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from picturebook.scenes import Scene, SceneObject

# The first word of an answer is the first of these that the expression leaves unsaid. The pattern leads because it is
# the one attribute that binding scenes make unpredictable from colour or kind alone.
ANSWER_ORDER = ("pattern", "size", "color", "kind")

# Centres must differ by this much, in scene units, before one object counts as left of or above another.
POSITION_MARGIN = 0.08

# An object counts as lying on a side of the picture when its centre is within this share of it.
SIDE_SHARE = 0.4

TEMPLATES = ("color_kind", "kind", "color", "pattern", "size", "full", "place", "position", "relation")
TEMPLATE_WEIGHTS = {
    "color_kind": 8.0,
    "kind": 2.0,
    "color": 1.0,
    "pattern": 1.5,
    "size": 1.5,
    "full": 1.0,
    "place": 1.0,
    "position": 1.5,
    "relation": 1.0,
}


@dataclass(frozen=True)
class Expression:
    """A referring expression.

    Attributes:
        text: The words, lower case, without a trailing full stop.
        target: Index of the object that it singles out.
        template: Which of `TEMPLATES` made it.
        said: Attributes named by the text, a subset of `ANSWER_ORDER`.
    """

    text: str
    target: int
    template: str
    said: frozenset[str]


def expressions_for(scene: Scene, target: int, rng: random.Random) -> list[Expression]:
    """Write every kind of expression that singles out one object, at most one for each template.

    Args:
        scene: The scene.
        target: Index of the object.
        rng: Chooses between equivalent wordings.

    Returns:
        Expressions that are true of the target and of no other object, in the order of `TEMPLATES`.
    """
    written = (_WRITERS[template](scene, target, rng) for template in TEMPLATES)
    return [expression for expression in written if expression is not None and answer_words(scene, expression)]


def sample_expressions(
    scene: Scene, count: int, rng: random.Random, weights: Optional[Mapping[str, float]] = None
) -> list[Expression]:
    """Draw different expressions about the objects of a scene, colour-and-kind ones most often unless weights differ.

    Args:
        scene: The scene.
        count: How many to draw; fewer come back when the scene has no more.
        rng: Source of chance.
        weights: Weight of each template that is drawn from; None for `TEMPLATE_WEIGHTS`.

    Returns:
        Expressions with different texts.
    """
    weights = TEMPLATE_WEIGHTS if weights is None else weights
    pool = [
        e for target in range(len(scene.objects)) for e in expressions_for(scene, target, rng) if e.template in weights
    ]
    # Efraimidis and Spirakis: sorting by u ** (1 / weight) draws without replacement in proportion to the weights.
    keyed = sorted(pool, key=lambda e: -(rng.random() ** (1.0 / weights[e.template])))
    unique = {e.text: e for e in reversed(keyed)}
    return [e for e in keyed if unique[e.text] is e][:count]


def answer_words(scene: Scene, expression: Expression) -> list[str]:
    """Say about the target what the expression leaves unsaid, the pattern first."""
    target = scene.objects[expression.target]
    return [getattr(target, name) for name in ANSWER_ORDER if name not in expression.said]


def all_words() -> list[str]:
    """Every word that an expression or an answer can hold, sorted."""
    from picturebook.scenes import COLORS, KINDS, PATTERNS, SIZES, SUPPORTS

    fixed = "a an the thing on of left right top bottom above below with wearing collar sitting standing ."
    plurals = [plural(kind) for kind in KINDS]
    return sorted({*fixed.split(), *KINDS, *plurals, *COLORS, *PATTERNS, *SIZES, *SUPPORTS})


def plural(kind: str) -> str:
    """Plural of a kind of object."""
    return kind + ("es" if kind.endswith("x") else "s")


def _noun_phrase(target: SceneObject, said: Sequence[str], rng: Optional[random.Random], tail: str = "") -> str:
    """Name the target by some of its attributes, with an optional tail; without chance the determiner is "the"."""
    words = [getattr(target, name) for name in ("size", "pattern", "color") if name in said]
    words.append(target.kind if "kind" in said else "thing")
    determiner = rng.choices(["the", "a", "", "plural"], [0.65, 0.17, 0.13, 0.05])[0] if rng else "the"
    if determiner == "plural" and "kind" in said and not tail:
        words[-1] = plural(words[-1])
    elif determiner == "a":
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    elif determiner == "the":
        words.insert(0, "the")
    return " ".join([*words, *tail.split()])


def _matching(scene: Scene, target: SceneObject, said: Sequence[str]) -> list[SceneObject]:
    """Objects that share the named attributes with the target."""
    return [o for o in scene.objects if all(getattr(o, name) == getattr(target, name) for name in said)]


def _by_attributes(template: str, *choices: Sequence[str]) -> Callable[..., Optional[Expression]]:
    """Make a writer that names attributes alone; the first choice in random order that singles out the target wins."""

    def write(scene: Scene, index: int, rng: random.Random) -> Optional[Expression]:
        target = scene.objects[index]
        for said in rng.sample(choices, len(choices)):
            if len(_matching(scene, target, said)) == 1:
                return Expression(_noun_phrase(target, said, rng), index, template, frozenset(said))
        return None

    return write


def _place(scene: Scene, index: int, rng: random.Random) -> Optional[Expression]:
    """Name what the target stands on, or the collar that it wears."""
    target = scene.objects[index]
    tails = []
    if target.support:
        tails.append(("support", rng.choice(["", "", "sitting ", "standing "]) + f"on the {target.support}"))
    if target.collar:
        tails.append(("collar", rng.choice(["wearing a collar", "with a collar"])))
    if not tails:
        return None
    extra, tail = rng.choice(tails)
    for said in rng.sample(_NAMED, len(_NAMED)):
        if len(_matching(scene, target, [*said, extra])) == 1:
            return Expression(_noun_phrase(target, said, rng, tail), index, "place", frozenset(said))
    return None


def _position(scene: Scene, index: int, rng: random.Random) -> Optional[Expression]:
    """Say where the target lies, among its like or in the picture."""
    target = scene.objects[index]
    for said in rng.sample(_NAMED, len(_NAMED)):
        others = [o for o in _matching(scene, target, said) if o is not target]
        sides = [side for side in _SIDES if _is_on_side(scene, target, others, side)]
        if sides:
            side = rng.choice(sides)
            if rng.random() < 0.5:
                text = _noun_phrase(target, said, rng, f"on the {side}")
            else:
                text = " ".join(["the", side, *_noun_phrase(target, said, None).split()[1:]])
            return Expression(text, index, "position", frozenset(said))
    return None


def _relation(scene: Scene, index: int, rng: random.Random) -> Optional[Expression]:
    """Relate the target to another object which is itself named without doubt."""
    target = scene.objects[index]
    anchors = [o for o in scene.objects if o is not target and len(_matching(scene, o, ("color", "kind"))) == 1]
    rng.shuffle(anchors)
    for anchor in anchors:
        for said in rng.sample(_NAMED, len(_NAMED)):
            rivals = [o for o in _matching(scene, target, said) if o is not anchor and o is not target]
            # A rival a little beyond the anchor would leave doubt: each must lie on the other side of it.
            fitting = [
                side
                for side in _SIDES
                if _is_beyond(target, anchor, side) and all(_advance(o, anchor, side) < 0 for o in rivals)
            ]
            if fitting:
                side = rng.choice(fitting)
                short = ("kind",) if len(_matching(scene, anchor, ("kind",))) == 1 else ("color", "kind")
                tail = f"{_RELATION_WORDS[side]} {_noun_phrase(anchor, short, None)}"
                return Expression(_noun_phrase(target, said, rng, tail), index, "relation", frozenset(said))
    return None


def _is_on_side(scene: Scene, target: SceneObject, others: Sequence[SceneObject], side: str) -> bool:
    """Whether the target alone lies on a side: beyond all its like, and on that side of the picture if it has none."""
    if others:
        return all(_is_beyond(target, other, side) for other in others)
    axis, sign = _SIDES[side]
    share = _centre(target)[axis] / scene.aspect[axis]
    return share < SIDE_SHARE if sign < 0 else share > 1.0 - SIDE_SHARE


def _is_beyond(target: SceneObject, other: SceneObject, side: str) -> bool:
    """Whether the target's centre lies clearly beyond the other's towards a side."""
    return _advance(target, other, side) > POSITION_MARGIN


def _advance(target: SceneObject, other: SceneObject, side: str) -> float:
    """How far, in scene units, the target's centre lies beyond the other's towards a side."""
    axis, sign = _SIDES[side]
    return sign * (_centre(target)[axis] - _centre(other)[axis])


def _centre(target: SceneObject) -> tuple[float, float]:
    """Centre of an object's frame, in scene units."""
    x0, y0, x1, y1 = target.frame
    return (x0 + x1) / 2, (y0 + y1) / 2


_NAMED = (("kind",), ("color", "kind"), ("size", "kind"), ("color",))
_SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
_RELATION_WORDS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
_WRITERS: dict[str, Callable[..., Optional[Expression]]] = {
    "color_kind": _by_attributes("color_kind", ("color", "kind")),
    "kind": _by_attributes("kind", ("kind",)),
    "color": _by_attributes("color", ("color",)),
    "pattern": _by_attributes("pattern", ("pattern", "kind"), ("pattern", "color", "kind"), ("pattern",)),
    "size": _by_attributes("size", ("size", "kind"), ("size", "color", "kind"), ("size", "color")),
    "full": _by_attributes("full", ("size", "pattern", "kind"), ("size", "pattern", "color")),
    "place": _place,
    "position": _position,
    "relation": _relation,
}
