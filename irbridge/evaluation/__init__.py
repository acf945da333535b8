"""Scores, and the records of them."""
