"""Scores and choices of heads as records, and the files that hold them."""
