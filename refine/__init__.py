"""Masks by a Segment Anything model, prompted with what attention says: its box, or points within it."""
