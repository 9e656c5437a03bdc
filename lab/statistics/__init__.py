"""Statistics over plain arrays: intervals and tests whose unit is the picture, exact sets of heads, ceilings."""
