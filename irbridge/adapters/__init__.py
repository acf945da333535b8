"""Condition adapters: the only part that trains, and the only part that sees the degraded image."""
