"""Photographs, pairs, generators of degradations, public sets."""
