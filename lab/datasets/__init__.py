"""Rows of a data set."""
