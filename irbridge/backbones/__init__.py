"""Frozen, pretrained networks."""
