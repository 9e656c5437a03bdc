"""Measures the tool against a baseline written in the plain way: `python -m benchmarks.run`."""
