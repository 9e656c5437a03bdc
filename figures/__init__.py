"""How figures are drawn; `viz.py` is what stages and notebooks call."""
