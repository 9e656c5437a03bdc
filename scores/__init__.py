"""Scores of predictions against ground truth: what a reviewer can count again."""
