"""Frozen pretrained networks behind one convention: ``denoise(z, tau) -> x0``."""
