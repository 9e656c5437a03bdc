"""The look that all figures share: colours, sizes of letters, distances in inches."""

from __future__ import annotations

INK, QUIET, FAINT = "#1A1A1A", "#5F6368", "#D0D3D6"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#9AA0A6"
PREDICTED_COLOR = "#00D4FF"
TRUTH_COLOR = "#FFFFFF"
HEAT = "inferno"
TITLE_PT, LABEL_PT, SMALL_PT = 12.0, 9.0, 8.0
MARGIN, GAP = 0.14, 0.12
MAX_BODY_WH = (12.5, 7.6)
PANELS_OF_A_SCREEN = 15  # with more of them the page gets longer, not the panels smaller
MOST_PANELS = 128
MOST_ASPECT = 10.0  # longer pictures are drawn as if they were so long
PANEL_AREA = 5.4
MIN_ROOM = 1.0
MIN_PAGE_WIDTH = 3.4
FOOTER_LINE, KEY_GAP, CAPTION_GAP = 0.2, 0.25, 0.04
NO_BOX = "no box"
MASK_INSET_PT = 2.6  # half the line of a box and half that of the mask: then neither lies on the other
MOST_INSET = 0.3  # of a cell
MOST_NUMBERED_CELLS = 10  # across or down; in more of them numbers would touch
PAPER_PT = 8.0
PAPER_DPI = 200


# What each sign is drawn with, from below: (colour, line width in points, line style).
STROKES: dict[str, tuple[tuple[str, float, object], ...]] = {
    "predicted": (("#00000080", 3.6, "solid"), (PREDICTED_COLOR, 2.2, "solid")),
    "truth": (("#262626", 2.0, "solid"), (TRUTH_COLOR, 1.5, (0, (4, 3)))),
    "mask": (("#FFFFFFB0", 2.4, "solid"), ("#262626", 0.9, "solid")),
}
