"""Photographs to restored photographs."""
