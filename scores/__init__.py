"""Scores of predicted boxes: what evaluate_boxes.py is made of."""
